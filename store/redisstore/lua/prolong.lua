-- Postpones the end of logs.
-- KEYS: their tops. ARGV: how long they are remembered from now on, in ms.
local clock = redis.call('TIME')
local keep = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[1]
for _, key in ipairs(KEYS) do
  local line = redis.call('GET', key)
  if line then
    local before, ends, after = string.match(line, '^(%S+ %S+ %d+ %d+ %d+ %d+) (%d+) (%x+ %S+ ?%S*)$')
    if before and tonumber(ends) < keep then
      redis.call('SET', key, string.format('%s %.0f %s', before, keep, after), 'PX', ARGV[1])
    end
  end
end
return 1
