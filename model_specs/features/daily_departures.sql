-- One row per airport and day of the week; what is known the week before: the same weekday of the
-- last two weeks and the mean of the last week (`history`, features.lookback: 2).
WITH days AS (
    SELECT origin, date_trunc('day', time_hour)::DATE AS day, count(*) AS departures
    FROM raw WHERE dep_time IS NOT NULL GROUP BY ALL
),
past AS (
    SELECT origin, date_trunc('day', time_hour)::DATE AS day, count(*) AS departures
    FROM history WHERE dep_time IS NOT NULL GROUP BY ALL
)
SELECT
    days.origin,
    days.day::TIMESTAMP AS day,
    isodow(days.day)::INT AS weekday,
    last_week.departures::DOUBLE AS departures_7d_ago,
    two_weeks.departures::DOUBLE AS departures_14d_ago,
    (SELECT avg(p.departures) FROM past AS p
     WHERE p.origin = days.origin AND p.day BETWEEN days.day - isodow(days.day)::INT - 6 AND days.day - isodow(days.day)::INT
    ) AS mean_last_week,
    days.departures::DOUBLE AS departures
FROM days
LEFT JOIN past AS last_week ON last_week.origin = days.origin AND last_week.day = days.day - 7
LEFT JOIN past AS two_weeks ON two_weeks.origin = days.origin AND two_weeks.day = days.day - 14
ORDER BY days.day, days.origin
