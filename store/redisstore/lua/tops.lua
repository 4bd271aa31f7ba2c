-- Returns the tops of the logs KEYS.
-- ARGV: 1 where the server may have become a replica, which may be behind; a
-- Cluster's would not run this.
if ARGV[1] == '1' and not string.find(redis.call('INFO', 'replication'), 'role:master', 1, true) then
  return redis.error_reply('READONLY the server is no longer the master, and may be behind it')
end
return redis.call('MGET', unpack(KEYS))
