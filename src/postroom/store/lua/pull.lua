-- The short leases of cursors: take one for some milliseconds, or (0) give it back. 1 where it is the holder's now.
--
-- ARGV: now, items.

local ITEM = '>I2I2I7'                 -- key holder milliseconds
local ITEM_BYTES = 11

local items, answers, writes = ARGV[2], {}, {}
local held = {}
local at = 1
while at <= #items do
  local key_bytes, holder_bytes, ms = struct.unpack(ITEM, items, at)
  local key_at = at + ITEM_BYTES
  local holder_at = key_at + key_bytes
  at = holder_at + holder_bytes
  local key, holder = string.sub(items, key_at, holder_at - 1), string.sub(items, holder_at, at - 1)
  if held[key] == nil then
    held[key] = redis.call('GET', key)
  end
  local mine, free = false, true
  if held[key] then
    local till = struct.unpack('>I7', held[key])
    mine = string.sub(held[key], 8) == holder
    free = now >= till
  end
  if not mine and not free then
    answers[#answers + 1] = 0
  else
    answers[#answers + 1] = 1
    if ms > 0 then
      held[key] = struct.pack('>I7', now + ms * 1000) .. holder
      writes[#writes + 1] = {'SET', key, held[key], 'PX', string.format('%.0f', ms)}
    elseif mine then
      held[key] = false
      writes[#writes + 1] = {'DEL', key}
    end
  end
end
for i = 1, #writes do
  redis.call(unpack(writes[i]))
end
return answers
