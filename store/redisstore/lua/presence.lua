-- Applies changes of a replica's members, in order.
-- KEYS: the replica, its members, its infos.
-- ARGV: for each change '+' or '-', place, info.
-- Returns 0 where there is no whole living record of the replica, which its
-- next report finds out, and 1 otherwise.
local had = redis.call('HGET', KEYS[1], 'members')
if not had or tonumber(had) ~= redis.call('ZCARD', KEYS[2]) then return 0 end
for i = 1, #ARGV, 3 do
  if ARGV[i] == '+' then
    redis.call('ZADD', KEYS[2], 0, ARGV[i + 1])
    redis.call('HSET', KEYS[3], ARGV[i + 1], ARGV[i + 2])
  else
    redis.call('ZREM', KEYS[2], ARGV[i + 1])
    redis.call('HDEL', KEYS[3], ARGV[i + 1])
  end
end
redis.call('HSET', KEYS[1], 'members', redis.call('ZCARD', KEYS[2]))
local ttl = redis.call('PTTL', KEYS[1])
redis.call('PEXPIRE', KEYS[2], ttl)
redis.call('PEXPIRE', KEYS[3], ttl)
return 1
