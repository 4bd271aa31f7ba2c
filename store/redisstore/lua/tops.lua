-- Returns the server's time in milliseconds, and the tops of the logs KEYS.
-- ARGV: 1 to refuse on a server that is a Redis replica now, which may be behind.
-- A Cluster's replica would not run this script.
if ARGV[1] == '1' and not string.find(redis.call('INFO', 'replication'), 'role:master', 1, true) then
  return redis.error_reply('READONLY the server is no longer the master, and may be behind it')
end
local clock = redis.call('TIME')
return {clock[1] * 1000 + math.floor(clock[2] / 1000), redis.call('MGET', unpack(KEYS))}
