-- The three views from revision 0003 on: the contract for dashboards and for SQL of one's own.
--
-- Their columns stay, with their names and meanings; new ones are added at the end. Tables may change
-- with any revision. NULL is *unknown*, never zero. Energies are kWh at the meter (before PUE),
-- emissions kg CO2eq (PUE included), durations seconds, times UTC. No view shows which machine or node
-- anything ran on.

-- One row a run: what was fixed at its start, its status, and the sums over its closed rounds.
-- rounds_... count closed rounds by status; round 0, the set-up, is in the sums, not in the counts.
CREATE VIEW v_run AS
SELECT
    r.run_id,
    r.run_name,
    r.flower_run_id,
    r.status,
    r.reason,
    r.started_at,
    r.ended_at,
    r.last_seen_at,
    r.rounds_planned,
    r.strategy,
    r.privacy,
    r.tracked,
    r.server_carbon_intensity_g_per_kwh,
    r.intensity_source,
    r.intensity_year,
    r.country,
    r.pue,
    r.server_scope,
    r.server_sensor,
    r.server_share,
    r.network_kwh_per_gb,
    r.tracker,
    r.value_metric,
    t.rounds_completed,
    t.rounds_partial,
    t.rounds_failed,
    t.rounds_interrupted,
    t.server_energy_kwh,
    t.clients_energy_kwh,
    t.server_emissions_kg,
    t.clients_emissions_kg,
    t.total_emissions_kg,
    t.setup_energy_kwh,
    t.configure_energy_kwh,
    t.wait_energy_kwh,
    t.aggregate_energy_kwh,
    t.evaluate_energy_kwh,
    t.idle_energy_kwh,
    t.reports_accepted,
    t.reports_rejected,
    t.reports_repeated,
    t.reports_late,
    t.reports_without_host,
    t.bytes_to_clients,
    t.bytes_from_clients,
    r.budget_kg,
    r.on_budget,
    r.client_rows,
    r.impute_missing,
    t.communication_emissions_kg_estimated,
    t.imputed_emissions_kg,
    t.imputed_low_emissions_kg,
    t.imputed_high_emissions_kg,
    r.sha256
FROM runs AS r
JOIN run_totals AS t ON t.run_id = r.run_id;

-- One row a round and attempt, open ones too (closed), with the factors that its figures were made
-- with. cumulative_emissions_kg is the run's total with this round, in the order in which rounds were
-- closed. Training metrics are in the table training_metrics.
CREATE VIEW v_round AS
SELECT
    d.run_id,
    r.run_name,
    d.round,
    d.attempt,
    d.revision,
    d.closed,
    d.tracked,
    d.status,
    d.reason,
    d.started_at,
    d.ended_at,
    d.duration_s,
    d.connected,
    d.participants,
    d.reported,
    d.missing,
    d.rejected,
    d.failed,
    d.coverage,
    d.complete,
    d.evaluate_reported,
    d.reports_without_host,
    d.reports_accepted,
    d.reports_rejected,
    d.reports_repeated,
    d.reports_late,
    d.metered_share,
    d.host_energy_kwh,
    d.server_energy_kwh,
    d.clients_energy_kwh,
    d.clients_energy_reports,
    d.server_emissions_kg,
    d.clients_emissions_kg,
    d.total_emissions_kg,
    d.cumulative_emissions_kg,
    d.clients_reported_emissions_kg,
    d.server_carbon_intensity_g_per_kwh,
    d.intensity_source,
    d.intensity_year,
    d.country,
    d.pue,
    d.server_scope,
    d.server_sensor,
    d.server_share,
    d.network_kwh_per_gb,
    d.bytes_to_clients,
    d.bytes_from_clients,
    d.communication_emissions_kg_estimated,
    d.imputed_emissions_kg,
    d.estimated_total_emissions_kg,
    d.privacy_epsilon,
    d.setup_energy_kwh,
    d.configure_energy_kwh,
    d.wait_energy_kwh,
    d.aggregate_energy_kwh,
    d.evaluate_energy_kwh,
    d.idle_energy_kwh,
    d.imputed_low_emissions_kg,
    d.imputed_high_emissions_kg,
    d.imputed_clients,
    d.reports_flagged,
    d.flagged_emissions_kg,
    d.client_rows,
    d.impute_missing,
    d.evidence_sha256
FROM rounds AS d
JOIN runs AS r ON r.run_id = d.run_id;

-- One row a client, round and attempt, under its pseudonym: its outcome, and what its reports count
-- for after the host rule. A client whose late report counts in a round that it took no part in has a
-- row there with train and outcome NULL, so that the rows of a round sum to its clients_emissions_kg.
CREATE VIEW v_client_round AS
WITH clients AS (
    SELECT run_id, round, attempt, node_id FROM participants
    UNION
    SELECT run_id, round, attempt, node_id FROM reports
),
counted AS (
    SELECT
        run_id,
        round,
        attempt,
        node_id,
        MAX(client) AS client,
        SUM(CASE WHEN accepted THEN 1 ELSE 0 END) AS reports_accepted,
        SUM(CASE WHEN accepted THEN 0 ELSE 1 END) AS reports_rejected,
        SUM(CASE WHEN accepted AND late THEN 1 ELSE 0 END) AS reports_late,
        MIN(rejection) AS rejection,
        SUM(CASE WHEN accepted THEN emissions_kg END) AS reported_emissions_kg,
        SUM(CASE WHEN accepted AND phase = 'train' THEN counted_emissions_kg END)
            AS train_emissions_kg,
        SUM(CASE WHEN accepted AND phase = 'evaluate' THEN counted_emissions_kg END)
            AS evaluate_emissions_kg,
        SUM(CASE WHEN accepted THEN counted_emissions_kg END) AS emissions_kg,
        SUM(CASE WHEN accepted AND phase = 'train' THEN counted_energy_kwh END)
            AS train_energy_kwh,
        SUM(CASE WHEN accepted AND phase = 'evaluate' THEN counted_energy_kwh END)
            AS evaluate_energy_kwh,
        SUM(CASE WHEN accepted THEN counted_energy_kwh END) AS energy_kwh,
        MAX(CASE WHEN looks_cumulative THEN 1 ELSE 0 END) AS looks_cumulative,
        MAX(CASE WHEN outlier THEN 1 ELSE 0 END) AS outlier
    FROM reports
    GROUP BY run_id, round, attempt, node_id
)
SELECT
    c.run_id,
    r.run_name,
    c.round,
    c.attempt,
    d.closed,
    d.ended_at AS round_ended_at,
    COALESCE(p.client, n.client) AS client,
    p.train,
    p.outcome,
    p.reason,
    p.examples,
    p.sent_at,
    p.replied_at,
    p.loopback,
    p.bytes_to,
    p.bytes_from,
    COALESCE(n.reports_accepted, 0) AS reports_accepted,
    COALESCE(n.reports_rejected, 0) AS reports_rejected,
    COALESCE(n.reports_late, 0) AS reports_late,
    n.rejection,
    n.reported_emissions_kg,
    n.train_emissions_kg,
    n.evaluate_emissions_kg,
    n.emissions_kg,
    n.train_energy_kwh,
    n.evaluate_energy_kwh,
    n.energy_kwh,
    COALESCE(n.looks_cumulative, 0) AS looks_cumulative,
    COALESCE(n.outlier, 0) AS outlier
FROM clients AS c
JOIN rounds AS d ON d.run_id = c.run_id AND d.round = c.round AND d.attempt = c.attempt
JOIN runs AS r ON r.run_id = c.run_id
LEFT JOIN participants AS p
    ON p.run_id = c.run_id AND p.round = c.round
    AND p.attempt = c.attempt AND p.node_id = c.node_id
LEFT JOIN counted AS n
    ON n.run_id = c.run_id AND n.round = c.round
    AND n.attempt = c.attempt AND n.node_id = c.node_id;
