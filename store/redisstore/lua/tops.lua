-- Returns the tops of the logs KEYS.
return redis.call('MGET', unpack(KEYS))
