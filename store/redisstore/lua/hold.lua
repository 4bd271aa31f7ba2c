-- Applies a replica's changes to what it holds, and takes over what dead replicas held
-- alone. It then returns what else the replica has to hear of.
-- KEYS: the names, the replicas, what the key of each replica's names begins with,
-- and the same for its news.
-- ARGV: the replica, the seconds after which one is dead, how many names of dead
-- replicas to look at (0 if it inherits nothing), and for each change '+', '-' or '?' (which changes nothing),
-- name, data.
-- Returns owner, number of holders and 1 if it had an effect, for each change; name,
-- owner, number of holders, 1 if it was inherited, data, for each name to hear of; and
-- how many names the replica holds.
local all, seen, me = KEYS[1], KEYS[2], ARGV[1]
local mine, news = KEYS[3] .. me, KEYS[4] .. me
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', seen, now, me) -- first: a full server refuses it, so nothing is half-written

-- A name's value is its holders, with spaces in between, a line end, and its data.
local function read(name)
  local list, data, value = {}, '', redis.call('HGET', all, name)
  if value then
    local line = string.find(value, '\n', 1, true)
    for r in string.gmatch(string.sub(value, 1, line - 1), '%S+') do list[#list + 1] = r end
    data = string.sub(value, line + 1)
  end
  return list, data
end
local function write(name, list, data)
  if #list == 0 then
    redis.call('HDEL', all, name)
  else
    redis.call('HSET', all, name, table.concat(list, ' ') .. '\n' .. data)
  end
end
local function place(list, r)
  for i = 1, #list do
    if list[i] == r then return i end
  end
end
-- release takes out the holder at a place. Who is the owner or the only holder because
-- of that is to hear of it.
local function release(name, list, at)
  table.remove(list, at)
  if #list > 0 and (at == 1 or #list == 1) then
    redis.call('SADD', KEYS[4] .. list[1], name)
    redis.call('EXPIRE', KEYS[4] .. list[1], 120)
  end
end

local done, told = {}, {}
for i = 4, #ARGV, 3 do
  local op, name = ARGV[i], ARGV[i + 1]
  local list, data = read(name)
  local at = place(list, me)
  local changed = '0'
  if op == '+' then
    if not at then
      list[#list + 1] = me
      changed = '1'
    end
    if ARGV[i + 2] ~= '' then data = ARGV[i + 2] end
    write(name, list, data)
    redis.call('SADD', mine, name)
  elseif op == '-' then
    if at then
      release(name, list, at)
      write(name, list, data)
      changed = '1'
    end
    redis.call('SREM', mine, name)
  else
    told[#told + 1] = {name, list[1] or '', #list, '1', data}
  end
  done[#done + 1] = {list[1] or '', #list, changed}
end

local budget = tonumber(ARGV[3])
for _, r in ipairs(redis.call('ZRANGEBYSCORE', seen, '-inf', '(' .. now - ARGV[2])) do
  if budget <= 0 then break end
  local names = redis.call('SPOP', KEYS[3] .. r, budget)
  for _, name in ipairs(names) do
    local list, data = read(name)
    local at = place(list, r)
    if at and #list == 1 then
      list[1] = me
      redis.call('SADD', mine, name)
      told[#told + 1] = {name, me, 1, '1', data}
    elseif at then
      release(name, list, at)
    end
    if at then write(name, list, data) end
  end
  budget = budget - #names
  if redis.call('SCARD', KEYS[3] .. r) == 0 then
    redis.call('ZREM', seen, r)
    redis.call('DEL', KEYS[4] .. r)
  end
end

for _, name in ipairs(redis.call('SPOP', news, 1000)) do
  local list = read(name)
  if place(list, me) then told[#told + 1] = {name, list[1], #list, '0', ''} end
end
for _, key in ipairs({all, seen, mine, news}) do redis.call('EXPIRE', key, 120) end
return {done, told, redis.call('SCARD', mine)}
