-- Gives what is left of a log another epoch where it lost acknowledged messages.
-- KEYS: its top. ARGV: an epoch and offset that the caller knows to be
-- acknowledged, and the other epoch.
-- Returns the log's epoch and last offset; nothing for an absent log.
local line = redis.call('GET', KEYS[1])
if not line then return {} end
local epoch, born, top, rest = string.match(line, '^(%S+) (%S+) (%d+) (.+)$')
if not epoch then
  return redis.error_reply('WRONGTYPE the key ' .. KEYS[1] .. ' has a text that this library has not written')
end
if epoch == ARGV[1] and tonumber(top) < tonumber(ARGV[2]) then
  epoch = ARGV[3]
  redis.call('SET', KEYS[1], table.concat({epoch, born, top, rest}, ' '), 'KEEPTTL')
end
return {epoch, tonumber(top)}
