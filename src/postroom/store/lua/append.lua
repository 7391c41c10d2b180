-- Append messages to many logs. First all that is read and decided, then all that is written: nothing is rolled back.
--
-- ARGV: now, items, the highest epoch that the caller has seen.

local ITEM = '>I1I2I2I2I4I7c27'        -- flags base name key payload at_least retention
local ITEM_BYTES = 45
local RETENTION = '>I6I6I7I7I1'        -- keep keep_confirmed max_messages max_bytes ring
local KEY = '>I5I7I7I6I7c16'           -- epoch offset previous number at digest
local REPEAT, LIVE, USER, TIED = 1, 2, 4, 8
local STORED, DUPLICATE, REUSED, FULL, TOO_LARGE, OTHER = 0, 1, 2, 3, 4, 5
local KEY_SECONDS = 86400
local AGED_AT_ONCE = 100
local SEARCHED, SEARCHED_US = 10000, 600 * 1000000

local items, seen_epoch = ARGV[2], tonumber(ARGV[3])

-- Which history the server is in: another one after a fail-over or a restart, when the tail of logs may be lost.
local run = string.match(call('INFO', 'replication'), 'master_replid:(%x+)')
run = string.gsub(sub(run, 1, 16), '%x%x', function(pair) return string.char(tonumber(pair, 16)) end)

local logs, touched, leases, keys = {}, {}, {}, {}
local NOBODY = {}

local retentions = {}

local function retention_of(packed)
  local kept = retentions[packed]
  if not kept then
    kept = {}
    kept.keep, kept.keep_confirmed, kept.max_messages, kept.max_bytes, kept.ring = unpack_from(RETENTION, packed)
    retentions[packed] = kept
  end
  return kept
end

local function log_of(base, name)
  local head_key = base .. ':h:' .. name
  local log = logs[head_key]
  if not log then
    local list_key = base .. ':l:' .. name
    log = log_from(head_key, list_key, call('HGET', head_key, 'h'), call('LLEN', list_key))
    logs[head_key] = log
    touched[#touched + 1] = log
  end
  return log
end

local function listed_at(base, flags)
  if flags % (2 * USER) < USER then
    return NOBODY
  end
  local listed = leases[base]
  if not listed then
    listed = call('SMEMBERS', base .. ':d')
    leases[base] = listed
  end
  return listed
end

-- The entry that an earlier try of the same append has stored: its place in the list, and itself.
local function stored_before(log, id)
  if not log.ids then
    log.ids = {}
    local at, lowest = log.length - 1, math.max(0, log.length - SEARCHED)
    while at >= lowest do
      local from = math.max(lowest, at - 49)
      local entries = call('LRANGE', log.list_key, from, at)
      for i = #entries, 1, -1 do
        local _, offset, _, entry_id = unpack_from(ENTRY, entries[i])
        log.ids[entry_id] = {from + i - 1, entries[i]}
        if offset < now - SEARCHED_US then
          from = lowest
        end
      end
      at = from - 1
    end
  end
  local found = log.ids[id]
  if found then
    return found[1], found[2]
  end
end

local function confirmed_now(log)
  if not log.cursors then
    local whole = call('HGETALL', log.head_key)
    log.cursors = {}
    for i = 1, #whole, 2 do
      if whole[i] ~= 'h' then
        local _, offset = unpack_from(CURSOR, whole[i + 1])
        log.cursors[whole[i]] = {offset = offset}
      end
    end
  end
  return confirmed(log)
end

local function drop_aged(log, kept)
  log.aged = true
  local through = now - kept.keep_confirmed * 1000
  if log.since > through or count(log) == 0 then
    return
  end
  local _, offset = unpack_from('>I5I7', oldest(log))
  log.since = offset
  if offset <= through then
    drop_through(log, math.max(now - kept.keep * 1000, math.min(through, confirmed_now(log))), AGED_AT_ONCE)
  end
end

local function fits(log, kept, wanted, size)
  return count(log) + wanted <= kept.max_messages and log.bytes + size <= kept.max_bytes
end

local function make_room(log, kept, wanted, size)
  while count(log) > 0 and not fits(log, kept, wanted, size) do
    local entry = oldest(log)
    if kept.ring == 0 then
      local _, offset = unpack_from('>I5I7', entry)
      if offset > confirmed_now(log) then
        return false
      end
    end
    drop(log, entry)
  end
  return fits(log, kept, wanted, size)
end

-- What an item's idempotency key was used for first, within its window: the digest, and the whole.
local function first_use(key_name)
  local first = keys[key_name] or call('GET', key_name)
  if first then
    local _, _, _, _, at, body = unpack_from(KEY, first)
    if now - at <= KEY_SECONDS * 1000000 then
      return body, first
    end
  end
end

-- What became of one item: status, live, epoch, offset, previous, number, listed.
local function append(flags, kept, base, name, key, at_least, payload)
  local log = log_of(base, name)
  log.keep, log.keep_confirmed = kept.keep, kept.keep_confirmed
  if flags % 2 == REPEAT then
    local at, entry = stored_before(log, sub(payload, 1, 8))
    if at then
      -- Written again, as it is: a WAIT that follows must have something to wait for.
      log.raw = nil
      local epoch, offset, live = unpack_from(ENTRY, entry)
      local previous = log.first_floor
      if at > 0 then
        previous = select(2, unpack_from('>I5I7', call('LINDEX', log.list_key, at - 1)))
      end
      return STORED, live, epoch, offset, previous, log.first_number + at + 1, listed_at(base, flags)
    end
  end
  local key_name, digest
  if key ~= '' then
    key_name, digest = base .. ':k:' .. sub(key, 17), sub(key, 1, 16)
    local body, first = first_use(key_name)
    if body then
      if body ~= digest then
        return REUSED, 0, 0, 0, 0, 0, NOBODY
      end
      local epoch, offset, previous, number = unpack_from(KEY, first)
      return DUPLICATE, 0, epoch, offset, previous, number, {}
    end
  end
  local _, body, headers = unpack_from('>c8I4I4', payload)
  if body + headers > kept.max_bytes then
    return TOO_LARGE, 0, 0, 0, 0, 0, NOBODY
  end
  if not log.aged then
    drop_aged(log, kept)
  end
  if not make_room(log, kept, 1, body + headers) then
    return FULL, 0, 0, 0, 0, 0, NOBODY
  end
  local listed = listed_at(base, flags)
  local live = (flags % (2 * LIVE) >= LIVE or #listed > 0) and 1 or 0
  if log.run ~= run then
    log.epoch = math.max(log.run and log.epoch + 1 or 0, math.floor(now / 1000000), seen_epoch)
    log.run = run
  end
  local previous = log.last
  log.last = math.max(previous + 1, now, at_least + 1)
  log.number = log.number + 1
  log.bytes = log.bytes + body + headers
  local entry = pack('>I5I7I1', log.epoch, log.last, live) .. payload
  if log.added == 0 then
    if log.length == 0 then
      log.since = log.last
    end
    log.entries = {entry}
  else
    log.entries[log.added + 1] = entry
  end
  log.added = log.added + 1
  if key_name then
    keys[key_name] = pack(KEY, log.epoch, log.last, previous, log.number, now, digest)
  end
  return STORED, live, log.epoch, log.last, previous, log.number, listed
end

-- The item at a place, as `append` takes it, behind the place of the next one.
local function item_at(at)
  local flags, base_bytes, name_bytes, key_bytes, bytes, at_least, retention = unpack_from(ITEM, items, at)
  local base_at = at + ITEM_BYTES
  local name_at = base_at + base_bytes
  local key_at = name_at + name_bytes
  local payload_at = key_at + key_bytes
  local next_at = payload_at + bytes
  return next_at, flags, retention_of(retention), sub(items, base_at, name_at - 1), sub(items, name_at, key_at - 1),
    sub(items, key_at, payload_at - 1), at_least, sub(items, payload_at, next_at - 1)
end

-- Whether the item at a place stands or falls with the one before it.
local function tied_at(at)
  return at <= #items and math.floor(string.byte(items, at) / TIED) % 2 == 1
end

-- Of the items from `at` on that are tied together: the place of one that cannot be stored, and why.
local function refused_together(at)
  local used, wanted, order = {}, {}, {}
  repeat
    local next_at, flags, kept, base, name, key, _, payload = item_at(at)
    local log = log_of(base, name)
    local stored = flags % 2 == REPEAT and stored_before(log, sub(payload, 1, 8))
    if not stored and key ~= '' then
      local key_name, digest = base .. ':k:' .. sub(key, 17), sub(key, 1, 16)
      stored = used[key_name] or first_use(key_name)
      if stored and stored ~= digest then
        return at, REUSED
      end
      used[key_name] = digest
    end
    if not stored then
      local _, body, headers = unpack_from('>c8I4I4', payload)
      if body + headers > kept.max_bytes then
        return at, TOO_LARGE
      end
      local want = wanted[log]
      if not want then
        want = {kept = kept, at = at, count = 0, size = 0}
        wanted[log] = want
        order[#order + 1] = log
      end
      want.count, want.size = want.count + 1, want.size + body + headers
    end
    at = next_at
  until not tied_at(at)
  for i = 1, #order do
    local log, want = order[i], wanted[order[i]]
    if not log.aged then
      drop_aged(log, want.kept)
    end
    if want.kept.ring == 0 and not make_room(log, want.kept, want.count, want.size) then
      return want.at, FULL
    end
  end
end

local answers, all_listed = {}, {}
local at, tied, fault, why = 1, false, nil, nil
while at <= #items do
  local here = at
  local next_at, flags, kept, base, name, key, at_least, payload = item_at(at)
  local tied_next = tied_at(next_at)
  if not tied then
    fault, why = nil, nil
    if tied_next then
      fault, why = refused_together(at)
    end
  end
  at, tied = next_at, tied_next
  local status, live, epoch, offset, previous, number, listed
  if fault then
    status, live, epoch, offset, previous, number, listed = here == fault and why or OTHER, 0, 0, 0, 0, 0, NOBODY
  else
    status, live, epoch, offset, previous, number, listed = append(flags, kept, base, name, key, at_least, payload)
  end
  answers[#answers + 1] = pack('>I1I1I2I8I8I8I8', status, live, #listed, epoch, offset, previous, number)
  for i = 1, #listed do
    all_listed[#all_listed + 1] = listed[i]
  end
end

for i = 1, #touched do
  local log = touched[i]
  for first = 1, log.added, 1000 do
    call('RPUSH', log.list_key, unpack(log.entries, first, math.min(first + 999, log.added)))
  end
  if log.dropped > 0 then
    call('LTRIM', log.list_key, log.dropped, -1)
  end
  if log.run then
    write_head(log)
    expire_head(log)
  end
  if log.added > 0 then
    expire(log.list_key, log.keep)
  end
end
for name, first in pairs(keys) do
  call('SET', name, first, 'PX', KEY_SECONDS * 1000)
end
return {table.concat(answers), all_listed}
