-- Two views from revision 0006 on, beside those of 0003_views.sql; what is said there holds for them.

-- One row a report, under the client's pseudonym: what it said (emissions_kg, energy_kwh), what it counts
-- for after the host rule (counted_...), why it does not count (rejection, and the value as it was sent),
-- and how it is marked. A late report stands in the round in which it counts; reported_round is the one
-- that it is about.
CREATE VIEW v_report AS
SELECT
    n.run_id,
    r.run_name,
    n.round,
    n.attempt,
    d.closed,
    d.ended_at AS round_ended_at,
    n.client,
    n.phase,
    n.reported_round,
    n.late,
    n.accepted,
    n.rejection,
    n.rejected_value,
    n.emissions_kg,
    n.energy_kwh,
    n.duration_s,
    n.country,
    n.carbon_intensity_g_per_kwh,
    n.sensor,
    n.scope,
    n.tracker,
    n.counted_energy_kwh,
    n.counted_emissions_kg,
    n.looks_cumulative,
    n.outlier
FROM reports AS n
JOIN rounds AS d ON d.run_id = n.run_id AND d.round = n.round AND d.attempt = n.attempt
JOIN runs AS r ON r.run_id = n.run_id;

-- One row a run that has values of its value_metric in closed rounds: the first, the best and the last one,
-- and what the way from the first to the best cost. The clients' evaluation where the run has one, else
-- training (split); of a round that was repeated the last attempt's. A point is 0.01 of the metric;
-- grams_per_point is NULL where nothing was gained, or where the grams are not known. The same figures as
-- those of `fedserver runs compare` (telemetry/analysis/value.py); values beyond 1e15 are left out.
CREATE VIEW v_run_value AS
WITH attempts AS (
    SELECT
        run_id,
        round,
        attempt,
        ended_at,
        cumulative_emissions_kg,
        ROW_NUMBER() OVER (PARTITION BY run_id, round ORDER BY attempt DESC) AS age,
        MIN(
            CASE
                WHEN server_emissions_kg IS NOT NULL OR reports_accepted + reports_late > 0
                THEN ended_at
            END
        ) OVER (PARTITION BY run_id) AS first_figure_at
    FROM rounds
    WHERE closed
),
valued AS (
    SELECT
        a.run_id,
        a.round,
        a.ended_at,
        CASE WHEN a.ended_at >= a.first_figure_at THEN a.cumulative_emissions_kg END AS spent_kg,
        r.value_metric,
        r.lower_is_better,
        m.split,
        MIN(m.split) OVER (PARTITION BY a.run_id) AS chosen_split,
        CASE WHEN ABS(m.value) < 1e-200 THEN 0 ELSE m.value END AS value
    FROM attempts AS a
    JOIN runs AS r ON r.run_id = a.run_id
    JOIN training_metrics AS m
        ON m.run_id = a.run_id AND m.round = a.round
        AND m.attempt = a.attempt AND m.name = r.value_metric
    WHERE a.age = 1 AND ABS(m.value) < 1e15
),
steps AS (
    SELECT
        run_id,
        round,
        spent_kg,
        value_metric,
        lower_is_better,
        split,
        value,
        ROW_NUMBER() OVER (PARTITION BY run_id ORDER BY ended_at, round) AS step,
        COUNT(*) OVER (PARTITION BY run_id) AS last_step,
        CASE
            WHEN lower_is_better THEN MIN(value) OVER (PARTITION BY run_id)
            ELSE MAX(value) OVER (PARTITION BY run_id)
        END AS extreme
    FROM valued
    WHERE split = chosen_split
),
ranked AS (
    SELECT
        run_id,
        round,
        spent_kg,
        value_metric,
        lower_is_better,
        split,
        value,
        step,
        last_step,
        MIN(
            CASE
                WHEN ABS(value - extreme) <= 1e-9 * ABS(value)
                    OR ABS(value - extreme) <= 1e-9 * ABS(extreme)
                THEN step
            END
        ) OVER (PARTITION BY run_id) AS best_step
    FROM steps
),
ends AS (
    SELECT
        run_id,
        value_metric,
        lower_is_better,
        split,
        MAX(CASE WHEN step = 1 THEN value END) AS first_value,
        MAX(CASE WHEN step = best_step THEN value END) AS best_value,
        MAX(CASE WHEN step = last_step THEN value END) AS last_value,
        MAX(CASE WHEN step = best_step THEN round END) AS best_round,
        MAX(CASE WHEN step = best_step THEN spent_kg END)
            - MAX(CASE WHEN step = 1 THEN spent_kg END) AS spent_kg
    FROM ranked
    GROUP BY run_id, value_metric, lower_is_better, split
)
SELECT
    run_id,
    value_metric AS metric,
    split,
    lower_is_better,
    first_value,
    best_value,
    last_value,
    best_round,
    ABS(best_value - first_value) / 0.01 AS points,
    CASE
        WHEN ABS(best_value - first_value) > 1e-200
        THEN spent_kg * 1000 / (ABS(best_value - first_value) / 0.01)
    END AS grams_per_point
FROM ends;
