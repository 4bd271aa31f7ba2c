-- Returns the names that a replica holds. KEYS: its names.
return redis.call('SMEMBERS', KEYS[1])
