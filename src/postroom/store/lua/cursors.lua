-- Cursors of logs: look up (and make known), confirm, attempt. Answers how each stands then.
--
-- ARGV: now, items.

local ITEM = '>I1I2I2I2I7I7I7'         -- what base name owner epoch offset number
local ITEM_BYTES = 28
local CONFIRM, ATTEMPT = 1, 2

local items, logs, touched, answers = ARGV[2], {}, {}, {}

local function log_of(base, name)
  local id = base .. ' ' .. name
  local log = logs[id]
  if not log then
    log = open_whole(base, name)
    log.changed = {}
    logs[id] = log
    touched[#touched + 1] = log
  end
  return log
end

local function cursor_of(log, owner)
  local cursor = log.cursors[owner]
  if not cursor then
    cursor = {epoch = 0, offset = 0, number = 0, attempted = 0, seen = 0}
    if owner ~= '' then
      cursor.offset, cursor.number = log.floor, log.floor_number
    end
    log.cursors[owner] = cursor
    log.changed[owner] = true
    log.new_owner = true
  end
  if owner ~= '' then
    -- Devices are forgotten, the shared cursor never is.
    cursor.seen = math.floor(now / 1000)
    log.changed[owner] = true
  end
  return cursor
end

local function confirm(log, owner, cursor, epoch, offset, number)
  if epoch > log.epoch or (epoch == log.epoch and (offset > log.last or (offset == log.last and number > log.number)))
  then
    epoch, offset, number = log.epoch, log.last, log.number
  end
  if epoch > cursor.epoch or (epoch == cursor.epoch and offset > cursor.offset) then
    cursor.epoch, cursor.offset, cursor.number = epoch, offset, number
    log.changed[owner] = true
    log.moved = true
  end
end

local at = 1
while at <= #items do
  local what, base_bytes, name_bytes, owner_bytes, epoch, offset, number = struct.unpack(ITEM, items, at)
  local base_at = at + ITEM_BYTES
  local name_at = base_at + base_bytes
  local owner_at = name_at + name_bytes
  at = owner_at + owner_bytes
  local owner = string.sub(items, owner_at, at - 1)
  local log = log_of(string.sub(items, base_at, name_at - 1), string.sub(items, name_at, owner_at - 1))
  local cursor = cursor_of(log, owner)
  if what == CONFIRM then
    confirm(log, owner, cursor, epoch, offset, number)
  elseif what == ATTEMPT and offset > cursor.attempted then
    cursor.attempted = offset
    log.changed[owner] = true
  end
  answers[#answers + 1] = struct.pack('>I8I8I8I8', cursor.epoch, cursor.offset, cursor.number, cursor.attempted)
end

for i = 1, #touched do
  local log = touched[i]
  local fields = {}
  for owner in pairs(log.changed) do
    local c = log.cursors[owner]
    fields[#fields + 1] = 'c' .. owner
    fields[#fields + 1] = struct.pack(CURSOR, c.epoch, c.offset, c.number, c.attempted, c.seen)
  end
  for first = 1, #fields, 1000 do
    redis.call('HSET', log.head_key, unpack(fields, first, math.min(first + 999, #fields)))
  end
  expire_head(log)
  if log.length > 0 then
    if log.moved and confirmed(log) >= log.last then
      local left = log.last / 1000 + log.keep_confirmed - now / 1000
      redis.call('PEXPIRE', log.list_key, string.format('%.0f', math.max(left, 0) + SLACK))
    elseif log.new_owner then
      expire(log.list_key, log.keep)
    end
  end
end
return table.concat(answers)
