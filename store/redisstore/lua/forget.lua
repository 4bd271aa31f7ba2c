-- Removes the KEYS of a replica.
return redis.call('UNLINK', unpack(KEYS))
