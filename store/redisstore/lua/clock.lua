-- Returns the server's clock in milliseconds. KEYS: any key on that server.
local clock = redis.call('TIME')
return clock[1] * 1000 + math.floor(clock[2] / 1000)
