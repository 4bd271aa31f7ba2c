-- Reads a part of a log.
-- KEYS: the log, its top.
-- ARGV: after, before, limit, the most bytes, 1 for the newest entries first,
-- 1 to return at least one entry however long it is.
-- Returns epoch, top, first, 1 if the bound of one call (not the caller's limit)
-- ended it, the earlier epochs, and then the entries as XRANGE returns them, but
-- with the info, if there is one, behind the header and the body.
if not string.find(redis.call('INFO', 'replication'), 'role:master', 1, true) then
  return redis.error_reply('READONLY the server is no longer the master, and may be behind it')
end
local line = redis.call('GET', KEYS[2])
if not line then return {} end
local epoch, top, ttl, oldest, earlier = string.match(line, '^(%S+) %S+ (%d+) (%d+) %d+ (%d+) %d+ %x+ (%S+) ?%S*$')
if not epoch then
  return redis.error_reply('WRONGTYPE the key ' .. KEYS[2] .. ' holds a value that this library did not write')
end
top, ttl, oldest = tonumber(top), tonumber(ttl), tonumber(oldest)
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function text(n) return string.format('%.0f', n) end

-- Offsets have no gaps, unless someone removed entries with XDEL: then the same
-- number of the oldest entries do not count.
local first = top - redis.call('XLEN', KEYS[1]) + 1
if first <= top and now - oldest >= ttl then
  local lo, hi = first, top + 1 -- the first entry that has not expired
  while lo < hi do
    local mid = math.floor((lo + hi) / 2)
    local at = redis.call('XRANGE', KEYS[1], text(mid), '+', 'COUNT', 1)[1]
    if at and now - tonumber(string.match(at[1], '%-(%d+)$')) >= ttl then lo = mid + 1 else hi = mid end
  end
  first = lo
end

local reply = {epoch, top, first, 0, earlier}
local after, before, limit, bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local newest, force = ARGV[5] == '1', ARGV[6] == '1'
local lo, hi = math.max(first, after + 1), math.min(top, before - 1)
local taken, sum, step = 0, 0, 8
while taken < limit and lo <= hi do
  local count = math.min(step, limit - taken, hi - lo + 1)
  local found
  if newest then
    found = redis.call('XREVRANGE', KEYS[1], text(hi), text(lo), 'COUNT', count)
  else
    found = redis.call('XRANGE', KEYS[1], text(lo), text(hi), 'COUNT', count)
  end
  if #found == 0 then return reply end
  local last = tonumber(string.match(found[#found][1], '^(%d+)'))
  if newest then hi = last - 1 else lo = last + 1 end
  local before_step = sum
  for _, entry in ipairs(found) do
    local fields = entry[2]
    if fields[1] ~= 'header' or fields[3] ~= 'body' then
      return redis.error_reply('WRONGTYPE the key ' .. KEYS[1] .. ' has an entry that this library did not write')
    end
    -- The id of the call that added it, a space and the info; or the id alone.
    local call = fields[6] or ''
    local info = string.sub(call, (string.find(call, ' ', 1, true) or #call) + 1)
    local length = #fields[2] + #fields[4] + #info
    if sum + length > bytes and not (force and taken == 0) then return reply end
    sum = sum + length
    taken = taken + 1
    fields[5], fields[6] = info ~= '' and info or nil, nil
    reply[#reply + 1] = entry
  end
  -- One call blocks the server only for a moment: 1 MiB or 1000 entries.
  if (sum >= 1048576 or taken >= 1000) and taken < limit and lo <= hi then
    reply[4] = 1
    return reply
  end
  if sum - before_step <= 65536 then step = math.min(step * 2, 256) else step = 1 end
end
return reply
