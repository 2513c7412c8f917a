-- One row per flight of a route; everything is known the week before: the timetable, and how late the
-- carrier was at each destination and hour in the two weeks before (`history`, features.lookback: 2).
WITH by_dest AS (
    SELECT dest, avg(arr_delay) AS delay, avg((arr_delay > 15)::INT) AS late FROM history GROUP BY dest
),
by_hour AS (SELECT hour, avg(arr_delay) AS delay FROM history GROUP BY hour),
timetable AS (
    SELECT date_trunc('day', time_hour) AS service_day, count(*) AS flights
    FROM raw GROUP BY service_day
)
SELECT
    raw.dest,
    date_trunc('day', raw.time_hour)::TIMESTAMP AS day,
    isodow(raw.time_hour)::INT AS weekday,
    raw.hour::INT AS dep_hour,
    raw.distance::DOUBLE AS distance,
    timetable.flights::INT AS flights_of_day,
    by_dest.delay AS dest_delay_14d,
    by_dest.late AS dest_late_14d,
    by_hour.delay AS hour_delay_14d,
    raw.arr_delay > 15 AS late
FROM raw
JOIN timetable ON timetable.service_day = date_trunc('day', raw.time_hour)
LEFT JOIN by_dest USING (dest)
LEFT JOIN by_hour USING (hour)
WHERE raw.arr_delay IS NOT NULL
ORDER BY raw.time_hour, raw.flight
