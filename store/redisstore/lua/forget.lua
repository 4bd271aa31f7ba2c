-- Removes a replica's keys KEYS.
return redis.call('UNLINK', unpack(KEYS))
