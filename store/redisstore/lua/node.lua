-- Returns what a replica says of itself. KEYS: its card.
return redis.call('HMGET', KEYS[1], 'started', 'info', 'seen')
