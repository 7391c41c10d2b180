-- Schema version 1. {s} is the schema's name, quoted.
--
-- A name of any length and any characters is stored as a digest of 16 bytes (`codec.digest`), which is what is
-- looked for; the text beside it is for people. Offsets (`at`) grow within a log whatever the epoch, so that the
-- order by offset is the order by position. Whoever locks several logs does so in the order of their digests.
-- No table refers to another by a foreign key, and every key of `entry` holds `at`, which is a time in
-- microseconds: it may be partitioned by ranges of `at`.

-- One row: the generation of the store, and the server that it was made on.
CREATE TABLE {s}.generation (
  alone boolean PRIMARY KEY DEFAULT true CHECK (alone),
  epoch bigint NOT NULL,
  server text NOT NULL,                 -- when it was started, and its timeline
  system text NOT NULL,                 -- its system identifier, and its timeline
  incarnation bigint NOT NULL           -- the last one given
);
INSERT INTO {s}.generation VALUES (true, 0, '', '', 0);

CREATE TABLE {s}.log (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  digest bytea NOT NULL UNIQUE,
  username text,
  name text NOT NULL,
  epoch bigint NOT NULL DEFAULT 0,
  last bigint NOT NULL DEFAULT 0,
  number bigint NOT NULL DEFAULT 0,
  floor bigint NOT NULL DEFAULT 0,
  floor_number bigint NOT NULL DEFAULT 0,
  bytes bigint NOT NULL DEFAULT 0,
  keep bigint NOT NULL DEFAULT 604800000000,          -- microseconds
  keep_confirmed bigint NOT NULL DEFAULT 600000000
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE {s}.entry (
  log bigint NOT NULL,
  at bigint NOT NULL,
  epoch bigint NOT NULL,
  previous bigint NOT NULL,
  number bigint NOT NULL,
  live boolean NOT NULL,
  size integer NOT NULL,
  head bytea NOT NULL,
  body bytea NOT NULL,
  PRIMARY KEY (log, at)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE {s}.cursor (
  log bigint NOT NULL,
  owner bytea NOT NULL,                 -- a digest; empty: the shared cursor
  epoch bigint NOT NULL,
  at bigint NOT NULL,
  number bigint NOT NULL,
  attempted bigint NOT NULL,
  seen bigint NOT NULL,
  PRIMARY KEY (log, owner)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE {s}.used_key (
  key bytea PRIMARY KEY,                -- a digest of log, sender and key
  body bytea NOT NULL,                  -- a digest of the body
  epoch bigint NOT NULL,
  at bigint NOT NULL,
  previous bigint NOT NULL,
  number bigint NOT NULL,
  used bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX used_key_by_age ON {s}.used_key (used);

-- Of each store that appends: the number of its last batch, and the answers to it.
CREATE TABLE {s}.writer (
  id bytea PRIMARY KEY,
  batch bigint NOT NULL,
  written bigint NOT NULL,
  status int[],
  live boolean[],
  epoch bigint[],
  at bigint[],
  previous bigint[],
  number bigint[]
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
  toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 5000);

-- Who is where. Leases and entries are unlogged both: after a crash of the server, or a fail-over, there are neither,
-- so that every node finds its lease lost and enters its users again. Entries without leases, or leases whose
-- entries are gone, would be worse than nothing.
CREATE UNLOGGED TABLE {s}.node (
  node text PRIMARY KEY,
  incarnation bigint NOT NULL,
  ends bigint NOT NULL
);
CREATE UNLOGGED TABLE {s}.presence (
  username bytea NOT NULL,
  incarnation bigint NOT NULL,
  node text NOT NULL,
  PRIMARY KEY (username, incarnation)
);
CREATE INDEX presence_by_incarnation ON {s}.presence (incarnation);
CREATE UNLOGGED TABLE {s}.pull (
  log bytea NOT NULL,
  owner bytea NOT NULL,
  holder text NOT NULL,
  ends bigint NOT NULL,
  PRIMARY KEY (log, owner)
);

-- Microseconds since 1970: the server's clock, or what a test hands in.
CREATE FUNCTION {s}.now_us(given bigint) RETURNS bigint LANGUAGE sql VOLATILE AS $$
  SELECT CASE WHEN given > 0 THEN given ELSE (extract(epoch FROM clock_timestamp()) * 1000000)::bigint END
$$;

-- What is answered must be on the disk, whatever the role's settings say.
CREATE FUNCTION {s}.durably() RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  IF current_setting('synchronous_commit') = 'off' THEN
    PERFORM set_config('synchronous_commit', 'on', true);
  END IF;
  -- To plan a statement anew for each batch takes longer than a small batch does.
  PERFORM set_config('plan_cache_mode', 'force_generic_plan', true);
END $$;

-- The epoch to append in. `lost`: a batch that a writer knows to be stored is not there. `whole`: all that a writer
-- has stored on this system is there, so that a mere restart of the server loses nothing. `seen`: the highest epoch
-- that a caller knows.
CREATE FUNCTION {s}.epoch_now(seen bigint, lost boolean, whole boolean, t bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  g {s}.generation;
  timeline text := substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8);
  here text := extract(epoch FROM pg_postmaster_start_time())::text || ' ' || timeline;
  identifier text := '';
BEGIN
  SELECT * INTO STRICT g FROM {s}.generation;
  IF g.server = here AND seen <= g.epoch AND NOT lost THEN
    RETURN g.epoch;
  END IF;
  SELECT * INTO STRICT g FROM {s}.generation FOR UPDATE;
  IF g.server <> here OR seen > g.epoch OR lost THEN
    BEGIN
      SELECT system_identifier::text || ' ' || timeline INTO identifier FROM pg_control_system();
    EXCEPTION WHEN insufficient_privilege THEN
      identifier := '';
    END;
    IF lost OR seen > g.epoch OR NOT whole OR identifier = '' OR identifier <> g.system THEN
      g.epoch := greatest(g.epoch + 1, seen + 1, t / 1000000);
    END IF;
    UPDATE {s}.generation SET epoch = g.epoch, server = here, system = identifier;
  END IF;
  RETURN g.epoch;
END $$;

-- Append a batch to many logs, and look up who is listed for them once it is stored.
--
-- `batch` is the writer's number of this batch, one higher than that of the last; the same once more is a repeat, and
-- gets the answers of the first time. `stored`: the highest batch that the writer knows to be stored.
-- Of each log: digest (in their order), the user's digest (NULL: a topic), user and name. Of each kind of retention:
-- six figures. Of each idempotency key: its digest. Of each item: its log, retention and key (0: none) by place in
-- these, the lowest offset, whether somebody follows, whether it stands or falls with the item before it, bytes counted,
-- digest of the body, head and body.
--
-- status: 0 stored, 1 duplicate, 2 reused, 3 full, 4 too large, 5 refused since another that it is tied to was.
CREATE PROCEDURE {s}.append(
  given_now bigint, writer_id bytea, batch bigint, stored bigint, seen bigint,
  log_digests bytea[], log_user_digests bytea[], log_users text[], log_names text[],
  r_keep bigint[], r_keep_confirmed bigint[], r_messages bigint[], r_bytes bigint[], r_ring boolean[],
  key_digests bytea[],
  i_log int[], i_kept int[], i_key int[], i_at bigint[], i_live boolean[],
  i_tied boolean[], i_size int[],
  i_digest bytea[], i_head bytea[], i_body bytea[],
  INOUT o_status int[], INOUT o_live boolean[], INOUT o_epoch bigint[], INOUT o_at bigint[],
  INOUT o_previous bigint[], INOUT o_number bigint[],
  INOUT listed_log int[], INOUT listed_node text[], INOUT listed_incarnation bigint[]
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  KEY_US constant bigint := 86400000000;
  t bigint;
  n constant int := cardinality(i_log);
  w record;
  epoch_here bigint;
  ids bigint[]; epochs bigint[]; lasts bigint[]; numbers bigint[]; floors bigint[]; floor_numbers bigint[];
  sizes bigint[]; keeps bigint[]; keeps_confirmed bigint[]; listed boolean[];
  logs_of int[] := i_log; kept_of int[] := i_kept; keys_of int[] := i_key; at_of bigint[] := i_at;
  live_of boolean[] := i_live; tied_to boolean[] := i_tied; size_of int[] := i_size; digest_of bytea[] := i_digest;
  k_body bytea[]; k_epoch bigint[]; k_at bigint[]; k_previous bigint[]; k_number bigint[]; k_used bigint[];
  k_new boolean := false;
  first_pending int := 1;
  dropped boolean := false;
  front_log int := 0; front_next int := 1; front_count int := 0; front_at bigint[]; front_size int[];
  front_confirmed bigint;
  run_end int := 0; fault int; why int; run_body bytea[]; run_log int[]; wanted int[]; wanted_size bigint[]; place int;
  drop_at bigint; drop_count bigint; drop_size bigint; enough boolean;
  l int; r int; k int; size int; at bigint; last bigint;
BEGIN
  PERFORM {s}.durably();
  t := {s}.now_us(given_now);
  SELECT * INTO w FROM {s}.writer WHERE id = writer_id FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    INSERT INTO {s}.writer (id, batch, written) VALUES (writer_id, 0, t) ON CONFLICT DO NOTHING;
    SELECT * INTO w FROM {s}.writer WHERE id = writer_id FOR NO KEY UPDATE;
  END IF;
  IF w.batch > batch THEN
    RAISE EXCEPTION 'a later batch of this writer is stored' USING ERRCODE = 'PR001';
  END IF;
  IF w.batch = batch THEN
    o_status := w.status; o_live := w.live; o_epoch := w.epoch; o_at := w.at;
    o_previous := w.previous; o_number := w.number;
  ELSE
    epoch_here := {s}.epoch_now(seen, w.batch < stored, stored > 0 AND w.batch >= stored, t);

    INSERT INTO {s}.log (digest, username, name)
      SELECT d, u, m FROM unnest(log_digests, log_users, log_names) AS x(d, u, m)
      WHERE NOT EXISTS (SELECT 1 FROM {s}.log WHERE digest = d) ORDER BY d
      ON CONFLICT (digest) DO NOTHING;
    SELECT array_agg(x.id), array_agg(x.epoch), array_agg(x.last), array_agg(x.number), array_agg(x.floor),
        array_agg(x.floor_number), array_agg(x.bytes), array_agg(x.keep), array_agg(x.keep_confirmed)
      INTO ids, epochs, lasts, numbers, floors, floor_numbers, sizes, keeps, keeps_confirmed
      FROM (
        SELECT g.* FROM unnest(log_digests) AS u(d) JOIN {s}.log AS g ON g.digest = u.d
        ORDER BY g.digest FOR NO KEY UPDATE OF g
      ) AS x;
    SELECT array_agg(EXISTS (SELECT 1 FROM {s}.presence AS p WHERE p.username = u.d) ORDER BY u.place)
      INTO listed FROM unnest(log_user_digests) WITH ORDINALITY AS u(d, place);
    IF cardinality(key_digests) > 0 THEN
      SELECT array_agg(e.body ORDER BY u.place), array_agg(e.epoch ORDER BY u.place), array_agg(e.at ORDER BY u.place),
          array_agg(e.previous ORDER BY u.place), array_agg(e.number ORDER BY u.place),
          array_agg(e.used ORDER BY u.place)
        INTO k_body, k_epoch, k_at, k_previous, k_number, k_used
        FROM unnest(key_digests) WITH ORDINALITY AS u(d, place) LEFT JOIN {s}.used_key AS e ON e.key = u.d;
    END IF;
    o_status := array_fill(0, ARRAY[n]); o_live := array_fill(false, ARRAY[n]);
    o_epoch := array_fill(0::bigint, ARRAY[n]); o_at := o_epoch; o_previous := o_epoch; o_number := o_epoch;

    FOR i IN 1 .. n LOOP
      IF i > run_end THEN
        run_end := i; fault := 0;
        WHILE run_end < n AND tied_to[run_end + 1] LOOP
          run_end := run_end + 1;
        END LOOP;
        IF run_end > i THEN
          -- Whether all of these can be stored; `run_log` has of each log the first item's place.
          run_body := '{}'; run_log := '{}'; wanted := '{}'; wanted_size := '{}';
          FOR j IN i .. run_end LOOP
            k := keys_of[j];
            IF k > 0 THEN
              IF run_body[k] IS NULL AND k_used[k] >= t - KEY_US THEN
                run_body[k] := k_body[k];
              END IF;
              IF run_body[k] <> digest_of[j] THEN
                fault := j; why := 2;
                EXIT;
              END IF;
              CONTINUE WHEN run_body[k] IS NOT NULL;
              run_body[k] := digest_of[j];
            END IF;
            IF size_of[j] > r_bytes[kept_of[j]] THEN
              fault := j; why := 4;
              EXIT;
            END IF;
            l := logs_of[j];
            wanted[l] := coalesce(wanted[l], 0) + 1; wanted_size[l] := coalesce(wanted_size[l], 0) + size_of[j];
            IF wanted[l] = 1 THEN
              run_log := run_log || j;
            END IF;
          END LOOP;
          FOREACH place IN ARRAY run_log LOOP
            EXIT WHEN fault > 0;
            l := logs_of[place]; r := kept_of[place];
            CONTINUE WHEN r_ring[r] OR (numbers[l] - floor_numbers[l] + wanted[l] <= r_messages[r]
              AND sizes[l] + wanted_size[l] <= r_bytes[r]);
            -- Drop what is confirmed: as much as makes room, or all of it where that is not enough.
            SELECT y.at, y.messages, y.size, y.enough INTO drop_at, drop_count, drop_size, enough FROM (
              SELECT x.*, numbers[l] - floor_numbers[l] - x.messages + wanted[l] <= r_messages[r]
                AND sizes[l] - x.size + wanted_size[l] <= r_bytes[r] AS enough
              FROM (
                SELECT e.at, row_number() OVER w AS messages, sum(e.size) OVER w AS size FROM {s}.entry AS e
                WHERE e.log = ids[l] AND e.at > floors[l]
                  AND e.at <= (SELECT coalesce(min(c.at), 0) FROM {s}.cursor AS c WHERE c.log = ids[l])
                WINDOW w AS (ORDER BY e.at)
              ) AS x
            ) AS y ORDER BY y.enough DESC, CASE WHEN y.enough THEN y.at ELSE -y.at END LIMIT 1;
            IF FOUND THEN
              floors[l] := drop_at; floor_numbers[l] := floor_numbers[l] + drop_count; sizes[l] := sizes[l] - drop_size;
              dropped := true; front_log := 0;
            END IF;
            IF enough IS NOT TRUE THEN
              fault := place; why := 3;
            END IF;
          END LOOP;
        END IF;
      END IF;
      IF fault > 0 THEN
        o_status[i] := CASE WHEN i = fault THEN why ELSE 5 END;
        CONTINUE;
      END IF;
      l := logs_of[i]; r := kept_of[i]; k := keys_of[i]; size := size_of[i];
      keeps[l] := r_keep[r]; keeps_confirmed[l] := r_keep_confirmed[r];
      IF k > 0 AND k_used[k] >= t - KEY_US THEN
        IF k_body[k] <> digest_of[i] THEN
          o_status[i] := 2;
        ELSE
          o_status[i] := 1; o_epoch[i] := k_epoch[k]; o_at[i] := k_at[k];
          o_previous[i] := k_previous[k]; o_number[i] := k_number[k];
        END IF;
        CONTINUE;
      END IF;
      IF size > r_bytes[r] THEN
        o_status[i] := 4;
        CONTINUE;
      END IF;
      IF numbers[l] - floor_numbers[l] >= r_messages[r] OR sizes[l] + size > r_bytes[r] THEN
        IF front_log <> l THEN
          front_log := l; front_next := 1; front_count := 0;
          SELECT coalesce(min(c.at), 0) INTO front_confirmed FROM {s}.cursor AS c WHERE c.log = ids[l];
        END IF;
        WHILE numbers[l] > floor_numbers[l]
            AND (numbers[l] - floor_numbers[l] >= r_messages[r] OR sizes[l] + size > r_bytes[r]) LOOP
          IF front_next > front_count THEN
            -- The oldest may be some of this batch.
            INSERT INTO {s}.entry (log, at, epoch, previous, number, live, size, head, body)
              SELECT ids[logs_of[x.place]], o_at[x.place], o_epoch[x.place], o_previous[x.place], o_number[x.place],
                o_live[x.place], size_of[x.place], x.head, x.body
              FROM unnest(i_head, i_body) WITH ORDINALITY AS x(head, body, place)
              WHERE x.place >= first_pending AND x.place < i AND o_status[x.place] = 0;
            first_pending := i;
            SELECT array_agg(f.at), array_agg(f.size), count(*) INTO front_at, front_size, front_count
              FROM (
                SELECT e.at, e.size FROM {s}.entry AS e WHERE e.log = ids[l] AND e.at > floors[l]
                ORDER BY e.at LIMIT 256
              ) AS f;
            front_next := 1;
          END IF;
          EXIT WHEN NOT r_ring[r] AND front_at[front_next] > front_confirmed;
          floors[l] := front_at[front_next]; floor_numbers[l] := floor_numbers[l] + 1;
          sizes[l] := sizes[l] - front_size[front_next];
          front_next := front_next + 1;
          dropped := true;
        END LOOP;
        IF numbers[l] - floor_numbers[l] >= r_messages[r] OR sizes[l] + size > r_bytes[r] THEN
          o_status[i] := 3;
          CONTINUE;
        END IF;
      END IF;
      last := lasts[l];
      at := greatest(last + 1, t, at_of[i] + 1);
      lasts[l] := at; epochs[l] := epoch_here; numbers[l] := numbers[l] + 1; sizes[l] := sizes[l] + size;
      o_live[i] := live_of[i] OR listed[l];
      o_epoch[i] := epoch_here; o_at[i] := at; o_previous[i] := last; o_number[i] := numbers[l];
      IF k > 0 THEN
        k_body[k] := digest_of[i]; k_epoch[k] := epoch_here; k_at[k] := at; k_previous[k] := last;
        k_number[k] := numbers[l]; k_used[k] := t; k_new := true;
      END IF;
    END LOOP;

    INSERT INTO {s}.entry (log, at, epoch, previous, number, live, size, head, body)
      SELECT ids[logs_of[x.place]], o_at[x.place], o_epoch[x.place], o_previous[x.place], o_number[x.place],
        o_live[x.place], size_of[x.place], x.head, x.body
      FROM unnest(i_head, i_body) WITH ORDINALITY AS x(head, body, place)
      WHERE x.place >= first_pending AND o_status[x.place] = 0;
    IF dropped THEN
      DELETE FROM {s}.entry AS e USING unnest(ids, floors) AS x(id, floor) WHERE e.log = x.id AND e.at <= x.floor;
    END IF;
    UPDATE {s}.log AS g SET epoch = x.epoch, last = x.last, number = x.number, floor = x.floor,
        floor_number = x.floor_number, bytes = x.bytes, keep = x.keep, keep_confirmed = x.keep_confirmed
      FROM unnest(ids, epochs, lasts, numbers, floors, floor_numbers, sizes, keeps, keeps_confirmed)
        AS x(id, epoch, last, number, floor, floor_number, bytes, keep, keep_confirmed)
      WHERE g.id = x.id;
    IF k_new THEN
      INSERT INTO {s}.used_key (key, body, epoch, at, previous, number, used)
        SELECT * FROM unnest(key_digests, k_body, k_epoch, k_at, k_previous, k_number, k_used)
          AS x(key, body, epoch, at, previous, number, used)
        WHERE x.used = t
        ON CONFLICT (key) DO UPDATE SET body = excluded.body, epoch = excluded.epoch, at = excluded.at,
          previous = excluded.previous, number = excluded.number, used = excluded.used;
    END IF;
    UPDATE {s}.writer SET batch = append.batch, written = t, status = o_status, live = o_live, epoch = o_epoch,
        at = o_at, previous = o_previous, number = o_number
      WHERE id = writer_id;
  END IF;
  COMMIT;
  -- Only now: who enters later finds the messages, and who entered before is found.
  SELECT array_agg(u.place), array_agg(p.node), array_agg(p.incarnation)
    INTO listed_log, listed_node, listed_incarnation
    FROM unnest(log_user_digests) WITH ORDINALITY AS u(d, place) JOIN {s}.presence AS p ON p.username = u.d;
END $$;

-- A page of a log, and its head at the same instant: rows that repeat the head, the entry NULL where there is none.
CREATE FUNCTION {s}.read(
  digests bytea[], afters_epoch bigint[], afters_at bigint[], limits int[], bounds bigint[]
) RETURNS TABLE (
  place bigint, epoch bigint, last bigint, number bigint, floor bigint, floor_number bigint,
  e_at bigint, e_epoch bigint, e_previous bigint, e_number bigint, e_live boolean, e_head bytea, e_body bytea
) LANGUAGE sql STABLE AS $$
  SELECT q.place, g.epoch, g.last, g.number, g.floor, g.floor_number,
    f.at, f.epoch, f.previous, f.number, f.live, f.head, f.body
  FROM unnest(digests, afters_epoch, afters_at, limits, bounds)
    WITH ORDINALITY AS q(digest, after_epoch, after_at, most, bound, place)
  JOIN {s}.log AS g ON g.digest = q.digest
  LEFT JOIN LATERAL (
    SELECT * FROM (
      SELECT p.*, sum(octet_length(p.body)) OVER w AS total, row_number() OVER w AS nth FROM (
        SELECT e.* FROM {s}.entry AS e WHERE e.log = g.id AND e.at > CASE
          WHEN q.after_epoch = g.epoch THEN q.after_at
          WHEN q.after_epoch > g.epoch THEN g.last
          -- A later epoch may have begun below this offset, after the log's end was lost.
          ELSE coalesce((
            SELECT o.at FROM {s}.entry AS o WHERE o.log = g.id AND o.at <= q.after_at AND o.epoch <= q.after_epoch
            ORDER BY o.at DESC LIMIT 1), 0)
          END
        ORDER BY e.at LIMIT q.most
      ) AS p WINDOW w AS (ORDER BY p.at)
    ) AS s WHERE s.nth = 1 OR s.total <= q.bound
  ) AS f ON true
  ORDER BY q.place, f.at
$$;

CREATE FUNCTION {s}.heads(digests bytea[])
RETURNS TABLE (place bigint, epoch bigint, last bigint, number bigint, floor bigint, floor_number bigint)
LANGUAGE sql STABLE AS $$
  SELECT q.place, g.epoch, g.last, g.number, g.floor, g.floor_number
  FROM unnest(digests) WITH ORDINALITY AS q(digest, place) JOIN {s}.log AS g ON g.digest = q.digest
$$;

-- Remove what is not above `through`, of logs whose rows are locked: how many went.
CREATE FUNCTION {s}.remove(ids bigint[], throughs bigint[]) RETURNS bigint LANGUAGE sql VOLATILE AS $$
  WITH gone AS (
    DELETE FROM {s}.entry AS e USING unnest(ids, throughs) AS x(id, through)
    WHERE e.log = x.id AND e.at <= x.through
    RETURNING e.log, e.at, e.number, e.size
  ), sums AS (
    SELECT log, max(at) AS at, max(number) AS number, sum(size) AS size, count(*) AS messages FROM gone GROUP BY log
  ), changed AS (
    UPDATE {s}.log AS g SET floor = s.at, floor_number = s.number, bytes = g.bytes - s.size FROM sums AS s
    WHERE g.id = s.log RETURNING s.messages
  )
  SELECT coalesce(sum(messages), 0)::bigint FROM changed
$$;

CREATE FUNCTION {s}.trim(log_digest bytea, through bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  found_id bigint;
BEGIN
  SELECT id INTO found_id FROM {s}.log WHERE digest = log_digest FOR NO KEY UPDATE;
  RETURN {s}.remove(ARRAY[found_id], ARRAY[through]);
END $$;

-- Cursors, many at once: `look` makes known and answers; `confirm` and `attempt` move forward. The logs are locked
-- against appends meanwhile: what an append under way will store is there for whoever reads behind this, or that
-- append sees who has entered the directory before this.
CREATE FUNCTION {s}.look(
  given_now bigint, digests bytea[], users text[], names text[], owners bytea[]
) RETURNS TABLE (place bigint, epoch bigint, at bigint, number bigint, attempted bigint, leased boolean)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
  t bigint := {s}.now_us(given_now);
BEGIN
  PERFORM {s}.durably();
  INSERT INTO {s}.log (digest, username, name)
    SELECT DISTINCT ON (d) d, u, m FROM unnest(digests, users, names) AS x(d, u, m)
    WHERE NOT EXISTS (SELECT 1 FROM {s}.log WHERE digest = d) ORDER BY d
    ON CONFLICT (digest) DO NOTHING;
  PERFORM 1 FROM (
    SELECT g.id FROM (SELECT DISTINCT x.d FROM unnest(digests) AS x(d)) AS u JOIN {s}.log AS g ON g.digest = u.d
    ORDER BY g.digest FOR SHARE OF g
  ) AS locked;
  INSERT INTO {s}.cursor AS c (log, owner, epoch, at, number, attempted, seen)
    SELECT g.id, x.owner, 0, CASE WHEN x.owner = '' THEN 0 ELSE g.floor END,
      CASE WHEN x.owner = '' THEN 0 ELSE g.floor_number END, 0, t
    FROM (SELECT DISTINCT d, owner FROM unnest(digests, owners) AS u(d, owner)) AS x
    JOIN {s}.log AS g ON g.digest = x.d
    -- The shared cursor is never forgotten: when it was last asked for does not matter.
    WHERE x.owner <> '' OR NOT EXISTS (SELECT 1 FROM {s}.cursor AS o WHERE o.log = g.id AND o.owner = '')
    ORDER BY g.id, x.owner
    ON CONFLICT (log, owner) DO UPDATE SET seen = greatest(c.seen, excluded.seen);
  RETURN QUERY
    SELECT x.place, c.epoch, c.at, c.number, c.attempted, coalesce(p.ends > t, false)
    FROM unnest(digests, owners) WITH ORDINALITY AS x(d, owner, place)
    JOIN {s}.log AS g ON g.digest = x.d
    JOIN {s}.cursor AS c ON c.log = g.id AND c.owner = x.owner
    LEFT JOIN {s}.pull AS p ON p.log = x.d AND p.owner = x.owner;
END $$;

-- Each (log, owner) once.
CREATE FUNCTION {s}.confirm(
  given_now bigint, digests bytea[], owners bytea[], epochs bigint[], ats bigint[], numbers bigint[]
) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
  t bigint := {s}.now_us(given_now);
BEGIN
  PERFORM {s}.durably();
  INSERT INTO {s}.cursor AS c (log, owner, epoch, at, number, attempted, seen)
    SELECT g.id, x.owner,
      CASE WHEN beyond THEN g.epoch ELSE x.epoch END,
      CASE WHEN beyond THEN g.last ELSE x.at END,
      CASE WHEN beyond THEN g.number ELSE x.number END, 0, t
    FROM unnest(digests, owners, epochs, ats, numbers) AS x(d, owner, epoch, at, number)
    JOIN {s}.log AS g ON g.digest = x.d
    CROSS JOIN LATERAL (SELECT (x.epoch, x.at, x.number) > (g.epoch, g.last, g.number)) AS b(beyond)
    WHERE g.number > 0
    ORDER BY g.id, x.owner
    ON CONFLICT (log, owner) DO UPDATE
      SET epoch = excluded.epoch, at = excluded.at, number = excluded.number, seen = greatest(c.seen, excluded.seen)
      WHERE (excluded.epoch, excluded.at) > (c.epoch, c.at);
END $$;

-- Each (log, owner) once.
CREATE FUNCTION {s}.attempt(
  given_now bigint, digests bytea[], users text[], names text[], owners bytea[], throughs bigint[]
) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
  PERFORM {s}.look(given_now, digests, users, names, owners);
  UPDATE {s}.cursor AS c SET attempted = x.through
    FROM unnest(digests, owners, throughs) AS x(d, owner, through) JOIN {s}.log AS g ON g.digest = x.d
    WHERE c.log = g.id AND c.owner = x.owner AND c.attempted < x.through;
END $$;

-- The short lease of a cursor, for a pull; 0 microseconds give it back. Whether it is the holder's now.
CREATE FUNCTION {s}.pull(given_now bigint, of_log bytea, of_owner bytea, taker text, microseconds bigint)
RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
  t bigint := {s}.now_us(given_now);
BEGIN
  IF microseconds = 0 THEN
    DELETE FROM {s}.pull WHERE log = of_log AND owner = of_owner AND holder = taker;
    RETURN true;
  END IF;
  INSERT INTO {s}.pull AS p (log, owner, holder, ends) VALUES (of_log, of_owner, taker, t + microseconds)
    ON CONFLICT (log, owner) DO UPDATE SET holder = excluded.holder, ends = excluded.ends
    WHERE p.holder = taker OR p.ends <= t;
  RETURN FOUND;
END $$;

-- Leases of nodes. `join` has incarnation 0 and answers the new one first; `renew` with what is held; both answer all
-- that live. Raises PR002 where the lease has ended, PR003 where another has taken the name.
CREATE FUNCTION {s}.lease(given_now bigint, named text, held bigint, microseconds bigint)
RETURNS TABLE (node text, incarnation bigint) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
  t bigint := {s}.now_us(given_now);
  given bigint;
  found_row {s}.node;
BEGIN
  IF held = 0 THEN
    -- Above the time in seconds too: a server that lost its data must not give an incarnation twice.
    UPDATE {s}.generation SET incarnation = greatest(incarnation + 1, t / 1000000) RETURNING incarnation INTO given;
    INSERT INTO {s}.node AS l VALUES (named, given, t + microseconds)
      ON CONFLICT (node) DO UPDATE SET incarnation = excluded.incarnation, ends = excluded.ends;
    RETURN QUERY SELECT named, given;
  ELSE
    SELECT * INTO found_row FROM {s}.node WHERE node = named FOR UPDATE;
    IF found_row.incarnation <> held THEN
      RAISE EXCEPTION 'another node took the name %', named USING ERRCODE = 'PR003';
    END IF;
    IF NOT FOUND OR found_row.ends <= t THEN
      RAISE EXCEPTION 'the lease has ended' USING ERRCODE = 'PR002';
    END IF;
    UPDATE {s}.node SET ends = t + microseconds WHERE node = named;
  END IF;
  RETURN QUERY SELECT l.node, l.incarnation FROM {s}.node AS l WHERE l.ends > t;
END $$;

CREATE FUNCTION {s}.retire(named text, held bigint) RETURNS void LANGUAGE sql VOLATILE AS $$
  DELETE FROM {s}.node WHERE node = named AND incarnation = held
$$;

-- Enter (`here`) or leave, many users of one lease. `call` grows with each call of a caller: a call that the network
-- delivers late, after a later one, is refused (PR001).
CREATE FUNCTION {s}.move(
  caller bytea, call bigint, here boolean, users bytea[], named text, held bigint
) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
  INSERT INTO {s}.writer AS w (id, batch, written) VALUES (caller, call, {s}.now_us(0))
    ON CONFLICT (id) DO UPDATE SET batch = excluded.batch, written = excluded.written WHERE w.batch <= excluded.batch;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'a later call of this caller is done' USING ERRCODE = 'PR001';
  END IF;
  IF here THEN
    INSERT INTO {s}.presence (username, incarnation, node)
      SELECT DISTINCT u, held, named FROM unnest(users) AS u ORDER BY u ON CONFLICT DO NOTHING;
  ELSE
    DELETE FROM {s}.presence WHERE username = ANY (users) AND incarnation = held AND node = named;
  END IF;
END $$;

CREATE FUNCTION {s}.locate(users bytea[]) RETURNS TABLE (place bigint, node text, incarnation bigint)
LANGUAGE sql STABLE AS $$
  SELECT u.place, p.node, p.incarnation
  FROM unnest(users) WITH ORDINALITY AS u(d, place) JOIN {s}.presence AS p ON p.username = u.d
$$;

-- Look at the next logs behind `after`: remove what no retention keeps, at most about `most` messages, and cursors of
-- devices that were not seen for long. Answers where to go on (0: from the start), and how many messages went.
CREATE FUNCTION {s}.sweep(given_now bigint, after bigint, logs int, most bigint, INOUT next bigint, INOUT gone bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
  DEVICE_US constant bigint := 2592000000000;
  t bigint := {s}.now_us(given_now);
  high bigint;
  seen int;
  ids bigint[];
  done bigint[];
  throughs bigint[];
BEGIN
  SELECT max(x.id), count(*) INTO high, seen
    FROM (SELECT id FROM {s}.log WHERE id > after ORDER BY id LIMIT logs) AS x;
  gone := 0;
  next := 0;
  IF seen = 0 THEN
    RETURN;
  END IF;
  DELETE FROM {s}.cursor
    WHERE log > after AND log <= high AND owner <> '' AND seen < t - DEVICE_US;
  -- Locked first, decided then: a new owner may have come meanwhile.
  SELECT array_agg(x.id ORDER BY x.id) INTO ids FROM (
    SELECT g.id FROM {s}.log AS g
    WHERE g.id > after AND g.id <= high AND g.number > g.floor_number
      AND (SELECT e.at FROM {s}.entry AS e WHERE e.log = g.id ORDER BY e.at LIMIT 1)
        <= t - least(g.keep, g.keep_confirmed)
    ORDER BY g.digest FOR NO KEY UPDATE OF g SKIP LOCKED
  ) AS x;
  SELECT array_agg(y.id ORDER BY y.id), array_agg(y.through ORDER BY y.id) INTO done, throughs
    FROM (
      SELECT x.*, sum(x.messages) OVER (ORDER BY x.id) - x.messages AS before FROM (
        SELECT g.id, g.number - g.floor_number AS messages, greatest(
          t - g.keep,
          least(coalesce((SELECT min(c.at) FROM {s}.cursor AS c WHERE c.log = g.id), 0), t - g.keep_confirmed)
        ) AS through
        FROM {s}.log AS g WHERE g.id = ANY (ids)
      ) AS x
    ) AS y WHERE y.before <= most;
  gone := {s}.remove(done, throughs);
  next := CASE
    WHEN cardinality(done) < cardinality(ids) THEN done[cardinality(done)]
    WHEN seen < logs THEN 0
    ELSE high
  END;
END $$;

-- Forget, some at a time, what is past its time: idempotency keys, writers, pulls, entries of nodes that are gone.
CREATE FUNCTION {s}.forget(given_now bigint, most int) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
  DAY_US constant bigint := 86400000000;
  t bigint := {s}.now_us(given_now);
BEGIN
  DELETE FROM {s}.used_key WHERE key IN (
    SELECT key FROM {s}.used_key WHERE used < t - DAY_US ORDER BY used LIMIT most FOR UPDATE SKIP LOCKED);
  DELETE FROM {s}.writer WHERE written < t - 60 * DAY_US;
  DELETE FROM {s}.pull WHERE ends < t - DAY_US;
  DELETE FROM {s}.node WHERE ends < t - DAY_US;
  DELETE FROM {s}.presence WHERE (username, incarnation) IN (
    WITH RECURSIVE held(incarnation) AS (
      SELECT min(incarnation) FROM {s}.presence
      UNION ALL
      SELECT (SELECT min(p.incarnation) FROM {s}.presence AS p WHERE p.incarnation > h.incarnation)
      FROM held AS h WHERE h.incarnation IS NOT NULL
    )
    SELECT p.username, p.incarnation FROM held AS h JOIN {s}.presence AS p ON p.incarnation = h.incarnation
    -- A lease that is not live and not yet to be given will never be live again.
    WHERE h.incarnation <= (SELECT g.incarnation FROM {s}.generation AS g)
      AND NOT EXISTS (SELECT 1 FROM {s}.node AS l WHERE l.incarnation = h.incarnation AND l.ends > t)
    LIMIT most);
END $$;
