-- Returns what a replica says of itself. KEYS: the replica.
return redis.call('HMGET', KEYS[1], 'started', 'info', 'seen')
