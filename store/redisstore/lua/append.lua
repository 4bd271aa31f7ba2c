-- Adds one message to a log, or finds the one that its idempotency key added.
-- KEYS: the log, its top, and the idempotency key if there is one.
-- ARGV: header, body, size, ttl, the epoch for a log that begins or changes its
-- epoch, the least time for which the top is remembered, an id of this call (with a
-- space and the info behind it if the message has one), the time by this server's
-- clock since when the call may have been done (0 unless an answer was lost), and
-- with a key its ttl and its digest. Times are in milliseconds.
-- Returns the epoch, the offset, 0 (1 for a duplicate, 2 if the key was used with
-- another digest), and the message's time (0 for a duplicate). A message that an
-- earlier attempt of this call added is no duplicate.
local size, ttl, stay = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[6])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function text(n) return string.format('%.0f', n) end

-- A server's data has one life, which ends when the server restarts or another
-- one takes over. The last acknowledged writes may then be lost.
local info = redis.call('INFO', 'replication')
if not string.find(info, 'role:master', 1, true) then
  return redis.error_reply('READONLY the server is no longer the master')
end

local call, since = string.match(ARGV[7], '^%w+'), tonumber(ARGV[8])
local epoch, born, top, last, oldest, keep, life, earlier
local repeats = '' -- retried calls of the last minute, as "id:offset:time,…"

-- Looks for the message that an earlier attempt of this call added. Returns its
-- offset and its time; nil if there is none; 'unsure' if the log does not reach back to the
-- first attempt.
local function before()
  local to = '+'
  if last < since then return nil end
  for _ = 1, 100 do
    local found = redis.call('XREVRANGE', KEYS[1], to, '-', 'COUNT', 100)
    local oldest = top + 1
    for _, entry in ipairs(found) do
      local offset, time = string.match(entry[1], '^(%d+)-(%d+)$')
      if string.sub(entry[2][6] or '', 1, #call) == call then return offset, time end
      if tonumber(time) < since then return nil end
      to, oldest = '(' .. entry[1], tonumber(offset)
    end
    if oldest == 1 then return nil end
    if #found < 100 then return 'unsure' end
  end
  return 'unsure'
end

local line = redis.call('GET', KEYS[2])
if line then
  epoch, born, top, last, oldest, keep, life, earlier, repeats = string.match(line, '^(%S+) (%S+) (%d+) %d+ (%d+) (%d+) (%d+) (%x+) (%S+) ?(%S*)$')
  if not epoch then
    return redis.error_reply('WRONGTYPE the key ' .. KEYS[2] .. ' holds a value that this library did not write')
  end
  top, last, oldest, keep = tonumber(top), tonumber(last), tonumber(oldest), tonumber(keep)
  if KEYS[3] then
    local seen = redis.call('GET', KEYS[3])
    if seen then
      local of, offset, by, digest = string.match(seen, '^(%S+) (%d+) (%S+) (.*)$')
      if of == born and tonumber(offset) <= top then
        if redis.call('PTTL', KEYS[2]) < stay then redis.call('PEXPIRE', KEYS[2], ARGV[6]) end
        if by ~= call then return {epoch, tonumber(offset), digest == ARGV[10] and 1 or 2, 0} end
        local entry = redis.call('XRANGE', KEYS[1], offset, offset)[1]
        return {epoch, tonumber(offset), 0, entry and tonumber(string.match(entry[1], '%d+$')) or 0}
      end
    end
  end
  if not KEYS[3] and (since > 0 or repeats ~= '') then
    local offset, time = string.match(repeats, call .. ':(%d+):(%d+)')
    if not offset and since > 0 then offset, time = before() end
    if offset == 'unsure' then
      return redis.error_reply('UNSURE the connection broke, and the log has dropped so many entries since that it is unknown whether the message was added')
    elseif offset then
      return {epoch, tonumber(offset), 0, tonumber(time)}
    end
  end
  now = math.max(now, last) -- the server's clock may have been set back
else
  local stale = redis.call('EXISTS', KEYS[1]) == 1
  if stale then redis.call('XLEN', KEYS[1]) end -- fails if the key is another program's
  if KEYS[3] then redis.call('GET', KEYS[3]) end
  -- Only if there is something to delete: the first command that writes must be
  -- one that a full server refuses.
  if stale then redis.call('DEL', KEYS[1]) end
  epoch, born, top, oldest, keep, earlier = ARGV[5], ARGV[5], 0, now, 0, '-'
end

if not life or not string.find(info, 'master_replid:' .. life, 1, true) then
  life = string.match(info, 'master_replid:(%x+)')
  if not life then
    return redis.error_reply('ERR INFO replication has no master_replid, which is needed to see a change of servers')
  end
  life = string.sub(life, 1, 20)
  -- Offsets go on under another epoch: those that were lost with the previous
  -- life keep their meaning in the earlier one.
  if line then
    local list = {epoch .. ':' .. text(top)}
    for e, offset in string.gmatch(earlier, '([^:,]+):(%d+)') do
      if #list == 8 then break end
      list[#list + 1] = e .. ':' .. text(math.min(tonumber(offset), top))
    end
    epoch, earlier = ARGV[5], table.concat(list, ',')
  end
end

top = top + 1
-- The info has no field of its own: Redis stores the names of the fields once for
-- entries that have the same ones, and again for each entry that has others.
redis.call('XADD', KEYS[1], 'MAXLEN', '=', size, text(top) .. '-' .. text(now), 'header', ARGV[1], 'body', ARGV[2], 'call', ARGV[7])

-- oldest is at or before the time of the oldest entry. The log is searched only
-- once that has expired, and at most 256 entries are dropped at a time.
if now - oldest >= ttl then
  local function at(from)
    local id = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 1)[1][1]
    local offset, time = string.match(id, '^(%d+)-(%d+)$')
    return tonumber(offset), tonumber(time)
  end
  local first, time = at('-')
  oldest = time
  if now - time >= ttl then
    local lo, hi = first + 1, top
    while lo < hi do
      local mid = math.floor((lo + hi) / 2)
      local _, t = at(text(mid))
      if now - t >= ttl then lo = mid + 1 else hi = mid end
    end
    lo = math.min(lo, first + 256)
    redis.call('XTRIM', KEYS[1], 'MINID', '=', text(lo))
    local _, t = at('-')
    oldest = t
  end
end

stay = math.max(stay, ttl)
if KEYS[3] then
  stay = math.max(stay, tonumber(ARGV[9]))
  redis.call('SET', KEYS[3], table.concat({born, text(top), call, ARGV[10]}, ' '), 'PX', ARGV[9])
end
-- The first attempt of a retried call may still be on its way. It must find the
-- message even if the log has dropped it.
if repeats ~= '' or since > 0 then
  local list = {}
  if since > 0 then list[1] = call .. ':' .. text(top) .. ':' .. text(now) end
  for one, time in string.gmatch(repeats, '([^,]+:(%d+))') do
    if #list < 16 and now - tonumber(time) < 60000 then list[#list + 1] = one end
  end
  repeats = table.concat(list, ',')
end
keep = math.max(keep, now + stay)
redis.call('PEXPIRE', KEYS[1], ARGV[4])
line = table.concat({epoch, born, text(top), ARGV[4], text(now), text(oldest), text(keep), life, earlier}, ' ')
if repeats ~= '' then line = line .. ' ' .. repeats end
redis.call('SET', KEYS[2], line, 'PX', text(keep - now))
return {epoch, top, 0, now}
