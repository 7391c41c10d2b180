-- The leases of nodes: one hash, of each node its incarnation and when its lease ends, and the last incarnation given.
--
-- ARGV: now, item (key, what, node, incarnation, milliseconds). Answers {"live", last incarnation, leases...},
-- {"ended"} or {"taken"}.

local key, what, node, incarnation, ms = unpack(cmsgpack.unpack(ARGV[2]))
local LAST = '#'
local field = '=' .. node

local function held()
  local found = redis.call('HGET', key, field)
  if found then
    return struct.unpack('>I7I7', found)
  end
end

local function hold()
  redis.call('HSET', key, field, struct.pack('>I7I7', incarnation, now + ms * 1000))
end

if what == 'join' then
  -- Above the time in seconds too: a server that lost its data must not give an incarnation twice.
  incarnation = math.max(tonumber(redis.call('HGET', key, LAST) or 0) + 1, math.floor(now / 1000000))
  redis.call('HSET', key, LAST, string.format('%.0f', incarnation))
  hold()
elseif what == 'renew' then
  local holder, till = held()
  if holder and holder ~= incarnation then
    return {'taken'}
  end
  if not holder or till <= now then
    redis.call('HDEL', key, field)
    return {'ended'}
  end
  hold()
elseif what == 'retire' then
  if held() == incarnation then
    redis.call('HDEL', key, field)
  end
end

local last = redis.call('HGET', key, LAST) or '0'
local answer = {'live', last}
local fields = redis.call('HGETALL', key)
for i = 1, #fields, 2 do
  if fields[i] ~= LAST then
    local holder, till = struct.unpack('>I7I7', fields[i + 1])
    if till > now then
      answer[#answer + 1] = string.sub(fields[i], 2) .. '/' .. string.format('%.0f', holder)
    end
  end
end
return answer
