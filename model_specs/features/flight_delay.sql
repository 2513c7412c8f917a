-- Everything here is known the evening before the flight: the timetable of the day, and how the
-- last seven days went (`history`, features.lookback: 7). Cancelled flights never arrive; they are
-- left out as rows, but they stand in the timetable.
WITH timetable AS (
    SELECT origin, hour, count(*) AS departures FROM raw GROUP BY origin, hour
),
recent AS (
    SELECT carrier, origin, dest, hour, arr_delay > 15 AS late
    FROM history
    WHERE arr_delay IS NOT NULL
),
by_carrier AS (SELECT carrier, avg(late::INT) AS late_7d FROM recent GROUP BY carrier),
by_dest AS (SELECT dest, avg(late::INT) AS late_7d FROM recent GROUP BY dest),
by_hour AS (SELECT origin, hour, avg(late::INT) AS late_7d FROM recent GROUP BY origin, hour),
yesterday AS (
    SELECT origin, avg((arr_delay > 15)::INT) AS late_1d
    FROM history
    WHERE arr_delay IS NOT NULL
      AND date_trunc('day', time_hour) = (SELECT max(date_trunc('day', time_hour)) FROM history)
    GROUP BY origin
)
SELECT
    raw.carrier,
    raw.origin,
    raw.dest,
    raw.distance::DOUBLE AS distance,
    raw.hour::INT AS dep_hour,
    isodow(raw.time_hour)::INT AS weekday,
    timetable.departures::INT AS departures_same_hour,
    by_carrier.late_7d AS carrier_late_7d,
    by_dest.late_7d AS dest_late_7d,
    by_hour.late_7d AS hour_late_7d,
    yesterday.late_1d AS origin_late_1d,
    raw.arr_delay > 15 AS late
FROM raw
JOIN timetable USING (origin, hour)
LEFT JOIN by_carrier USING (carrier)
LEFT JOIN by_dest USING (dest)
LEFT JOIN by_hour USING (origin, hour)
LEFT JOIN yesterday USING (origin)
WHERE raw.arr_delay IS NOT NULL
ORDER BY raw.time_hour, raw.carrier, raw.flight, raw.origin
