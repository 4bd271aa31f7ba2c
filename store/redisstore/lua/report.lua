-- Records a replica's report: about itself, and the changes of its channels.
-- KEYS: the replica, its names, counts, members and infos; if a long report of
-- everything was staged, the four staged keys in the same order; and last its
-- card, which outlives the rest.
-- ARGV: ttl in ms, the card's ttl, an id of this report, which all its parts
-- share, the id of the change before it, started, info, 1 for everything, how
-- many channels and members were staged, how many counts follow (name, numbers),
-- the counts, and then members (place, info).
-- Returns 1 if a living record of the replica was there, as the change before
-- left it, and not an older one, of a server that came back with old data.
local node, card, ttl, full = KEYS[1], KEYS[#KEYS], ARGV[1], ARGV[7] == '1'
local staged = #KEYS > 6
local had = redis.call('HMGET', node, 'channels', 'members', 'report', 'known')
-- Fails if another program's value is in one of the keys.
local names, counts = redis.call('ZCARD', KEYS[2]), redis.call('HLEN', KEYS[3])
local members, infos = redis.call('ZCARD', KEYS[4]), redis.call('HLEN', KEYS[5])
redis.call('HLEN', card)
local channels, people = had[1] and tonumber(had[1]), had[2] and tonumber(had[2])
local whole = channels and channels == names and channels == counts and people == members and people == infos
local repeated = whole and had[3] == ARGV[3] -- this report, or another part of it, was recorded already
whole = repeated or whole and had[3] == ARGV[4]
local known = whole and '1' or '0'
if repeated then
  known = had[4]
  if full then return tonumber(known) end -- the earlier answer was lost
end

if staged then
  for i = 6, 9 do
    local size = tonumber(ARGV[i < 8 and 8 or 9])
    if redis.call(i % 2 == 0 and 'ZCARD' or 'HLEN', KEYS[i]) ~= size then
      return redis.error_reply('TRYAGAIN the staged report has expired')
    end
  end
end
redis.call('HSET', node, 'report', ARGV[3]) -- first: a full server refuses it, so nothing is half-written
if full or not whole then
  redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4], KEYS[5])
end
if staged then
  for i = 6, 9 do
    if redis.call('EXISTS', KEYS[i]) == 1 then redis.call('RENAME', KEYS[i], KEYS[i - 4]) end
  end
end
local given = tonumber(ARGV[10])
for i = 11, 10 + 2 * given, 2 do
  if ARGV[i + 1] == '' then
    redis.call('ZREM', KEYS[2], ARGV[i])
    redis.call('HDEL', KEYS[3], ARGV[i])
  else
    redis.call('ZADD', KEYS[2], 0, ARGV[i])
    redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
  end
end
for i = 11 + 2 * given, #ARGV, 2 do
  redis.call('ZADD', KEYS[4], 0, ARGV[i])
  redis.call('HSET', KEYS[5], ARGV[i], ARGV[i + 1])
end
local clock = redis.call('TIME')
redis.call('HSET', card, 'started', ARGV[5], 'info', ARGV[6], 'seen', string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000)))
redis.call('PEXPIRE', card, ARGV[2])
redis.call('HSET', node, 'channels', redis.call('ZCARD', KEYS[2]), 'members', redis.call('ZCARD', KEYS[4]), 'known', known)
for i = 1, 5 do redis.call('PEXPIRE', KEYS[i], ttl) end
return tonumber(known)
