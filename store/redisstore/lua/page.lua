-- Returns a range of a sorted set's names, and the hash's value for each.
-- KEYS: the sorted set, the hash. ARGV: the bounds for ZRANGEBYLEX, the maximum
-- number of names, 1 to count all names within the bounds.
-- Returns the count (0 if it was not asked for), the names, the values.
local total = 0
if ARGV[4] == '1' then total = redis.call('ZLEXCOUNT', KEYS[1], ARGV[1], ARGV[2]) end
local names, values = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], ARGV[2], 'LIMIT', 0, ARGV[3]), {}
for i = 1, #names, 1000 do
  for _, value in ipairs(redis.call('HMGET', KEYS[2], unpack(names, i, math.min(i + 999, #names)))) do
    values[#values + 1] = value
  end
end
return {total, names, values}
