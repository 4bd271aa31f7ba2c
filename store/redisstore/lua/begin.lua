-- Begins a log without entries, unless it is there.
-- KEYS: the log, its top.
-- ARGV: for how many milliseconds a log that begins is remembered, and its epoch.
-- Returns the log's epoch and offset.
local info = redis.call('INFO', 'replication')
if not string.find(info, 'role:master', 1, true) then
  return redis.error_reply('READONLY the server is no longer the master')
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local keep = now + ARGV[1]
local function text(n) return string.format('%.0f', n) end
local line = redis.call('GET', KEYS[2])
if line then
  local before, epoch, top, ends, after = string.match(line, '^((%S+) %S+ (%d+) %d+ %d+ %d+) (%d+) (%x+ %S+ ?%S*)$')
  if not before then
    return redis.error_reply('WRONGTYPE the key ' .. KEYS[2] .. ' holds a value that this library did not write')
  end
  if top == '0' and tonumber(ends) < keep then
    redis.call('SET', KEYS[2], table.concat({before, text(keep), after}, ' '), 'PX', ARGV[1])
  end
  return {epoch, tonumber(top)}
end
local life = string.match(info, 'master_replid:(%x+)')
if not life then
  return redis.error_reply('ERR INFO replication has no master_replid, which is needed to see a change of servers')
end
if redis.call('EXISTS', KEYS[1]) == 1 then -- of a log whose top is gone
  redis.call('XLEN', KEYS[1]) -- fails if the key is another program's
  redis.call('DEL', KEYS[1])
end
redis.call('SET', KEYS[2], table.concat({ARGV[2], ARGV[2], '0', '0', text(now), text(now), text(keep), string.sub(life, 1, 20), '-'}, ' '), 'PX', ARGV[1])
return {ARGV[2], 0}
