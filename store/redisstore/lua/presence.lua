-- Applies changes to a replica's members, in order.
-- KEYS: the replica, its members, its infos.
-- ARGV: an id of this change, the id of the change before it, and for each
-- member '+' or '-', place, info.
-- Returns 1. Returns 0 and does nothing if the replica has no complete, living
-- record as the change before left it; the replica's next report finds that out.
local had = redis.call('HMGET', KEYS[1], 'members', 'report')
if not had[1] or tonumber(had[1]) ~= redis.call('ZCARD', KEYS[2]) or had[2] ~= ARGV[2] and had[2] ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'report', ARGV[1]) -- first: a full server refuses it, so nothing is half-written
for i = 3, #ARGV, 3 do
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
