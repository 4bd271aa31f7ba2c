-- Returns what a replica reports about itself, and the server's time in
-- milliseconds, which is by the same clock as "seen". KEYS: its card.
local fields, clock = redis.call('HMGET', KEYS[1], 'started', 'info', 'seen'), redis.call('TIME')
fields[4] = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
return fields
