-- Returns what a replica says of itself, and the server's time in milliseconds:
-- when it was seen is by the clock of the same server. KEYS: its card.
local fields, clock = redis.call('HMGET', KEYS[1], 'started', 'info', 'seen'), redis.call('TIME')
fields[4] = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
return fields
