BEGIN TRANSACTION;
CREATE TABLE api_tokens (
	sha256 TEXT NOT NULL, 
	label TEXT NOT NULL, 
	scopes TEXT NOT NULL, 
	created_at VARCHAR(27) NOT NULL, 
	expires_at VARCHAR(27), 
	revoked_at VARCHAR(27), 
	CONSTRAINT pk_api_tokens PRIMARY KEY (sha256)
);
CREATE TABLE deleted_runs (
	run_id TEXT NOT NULL, 
	deleted_at VARCHAR(27) NOT NULL, 
	sha256 TEXT, 
	CONSTRAINT pk_deleted_runs PRIMARY KEY (run_id)
);
CREATE TABLE participants (
	run_id TEXT NOT NULL, 
	round INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	node_id TEXT NOT NULL, 
	position INTEGER NOT NULL, 
	client TEXT NOT NULL, 
	train BOOLEAN NOT NULL, 
	outcome TEXT, 
	reason TEXT, 
	examples BIGINT, 
	sent_at VARCHAR(27), 
	replied_at VARCHAR(27), 
	loopback BOOLEAN, 
	bytes_to BIGINT, 
	bytes_from BIGINT, 
	CONSTRAINT pk_participants PRIMARY KEY (run_id, round, attempt, node_id), 
	CONSTRAINT ck_participants_outcome CHECK (outcome IN ('reported', 'missing', 'rejected', 'failed')), 
	CONSTRAINT ck_participants_never_negative CHECK (examples >= 0 AND bytes_to >= 0 AND bytes_from >= 0), 
	CONSTRAINT fk_participants_rounds FOREIGN KEY(run_id, round, attempt) REFERENCES rounds (run_id, round, attempt) ON DELETE CASCADE
)
 WITHOUT ROWID

;
INSERT INTO "participants" VALUES('20260102-030405-abcdef',1,1,'1',0,'c-6b86b273',1,'reported',NULL,10,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "participants" VALUES('20260102-030405-abcdef',1,1,'2',1,'c-d4735e3a',1,'missing',NULL,10,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "participants" VALUES('20260102-030405-abcdef',1,1,'3',2,'c-4e074085',1,'rejected',NULL,10,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE reports (
	run_id TEXT NOT NULL, 
	round INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	node_id TEXT NOT NULL, 
	phase TEXT NOT NULL, 
	reported_round INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	client TEXT NOT NULL, 
	late BOOLEAN NOT NULL, 
	accepted BOOLEAN NOT NULL, 
	rejection TEXT, 
	rejected_value TEXT, 
	emissions_kg DOUBLE, 
	energy_kwh DOUBLE, 
	cpu_kwh DOUBLE, 
	gpu_kwh DOUBLE, 
	ram_kwh DOUBLE, 
	duration_s DOUBLE, 
	started_at VARCHAR(27), 
	ended_at VARCHAR(27), 
	country TEXT, 
	carbon_intensity_g_per_kwh DOUBLE, 
	sensor TEXT, 
	scope TEXT, 
	host_id TEXT, 
	tracker TEXT, 
	schema_version BIGINT, 
	dropped_fields TEXT, 
	on_server_host BOOLEAN NOT NULL, 
	counted_energy_kwh DOUBLE, 
	counted_emissions_kg DOUBLE, looks_cumulative BOOLEAN DEFAULT 0 NOT NULL, outlier BOOLEAN DEFAULT 0 NOT NULL, 
	CONSTRAINT pk_reports PRIMARY KEY (run_id, round, attempt, node_id, phase, reported_round), 
	CONSTRAINT ck_reports_phase CHECK (phase IN ('train', 'evaluate')), 
	CONSTRAINT ck_reports_rejection CHECK (rejection IN ('not_a_number', 'not_finite', 'negative', 'implausible', 'inconsistent')), 
	CONSTRAINT ck_reports_sensor CHECK (sensor IN ('rapl', 'nvml', 'mixed', 'model', 'constant', 'unknown')), 
	CONSTRAINT ck_reports_never_negative CHECK (reported_round >= 0 AND emissions_kg >= 0 AND energy_kwh >= 0 AND cpu_kwh >= 0 AND gpu_kwh >= 0 AND ram_kwh >= 0 AND duration_s >= 0 AND carbon_intensity_g_per_kwh >= 0 AND counted_energy_kwh >= 0 AND counted_emissions_kg >= 0), 
	CONSTRAINT fk_reports_rounds FOREIGN KEY(run_id, round, attempt) REFERENCES rounds (run_id, round, attempt) ON DELETE CASCADE
)
 WITHOUT ROWID

;
INSERT INTO "reports" VALUES('20260102-030405-abcdef',1,1,'1','train',1,0,'c-6b86b273',0,1,NULL,NULL,0.5,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'host-of-1',NULL,NULL,NULL,0,NULL,0.5,0,0);
INSERT INTO "reports" VALUES('20260102-030405-abcdef',1,1,'3','train',1,1,'c-4e074085',0,0,'negative','made up',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,NULL,NULL,0,0);
CREATE TABLE round_deliveries (
	service TEXT NOT NULL, 
	run_id TEXT NOT NULL, 
	round INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	CONSTRAINT pk_round_deliveries PRIMARY KEY (service, run_id, round, attempt), 
	CONSTRAINT fk_round_deliveries_rounds FOREIGN KEY(run_id, round, attempt) REFERENCES rounds (run_id, round, attempt) ON DELETE CASCADE
);
INSERT INTO "round_deliveries" VALUES('http://127.0.0.1:9464','20260102-030405-abcdef',1,1);
CREATE TABLE round_noise (
	run_id TEXT NOT NULL, 
	round INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	noise_stdv DOUBLE NOT NULL, 
	distance DOUBLE, 
	CONSTRAINT pk_round_noise PRIMARY KEY (run_id, round, attempt), 
	CONSTRAINT ck_round_noise_never_negative CHECK (noise_stdv >= 0 AND distance >= 0), 
	CONSTRAINT fk_round_noise_rounds FOREIGN KEY(run_id, round, attempt) REFERENCES rounds (run_id, round, attempt) ON DELETE CASCADE
);
INSERT INTO "round_noise" VALUES('20260102-030405-abcdef',3,1,0.25,NULL);
CREATE TABLE round_phases (
	run_id TEXT NOT NULL, 
	round INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	lap INTEGER NOT NULL, 
	phase TEXT NOT NULL, 
	wall_s DOUBLE NOT NULL, 
	metered_s DOUBLE NOT NULL, 
	energy_kwh DOUBLE, 
	cpu_kwh DOUBLE, 
	gpu_kwh DOUBLE, 
	ram_kwh DOUBLE, 
	prorated BOOLEAN NOT NULL, 
	reason TEXT, machine_kwh DOUBLE, 
	CONSTRAINT pk_round_phases PRIMARY KEY (run_id, round, attempt, lap), 
	CONSTRAINT ck_round_phases_phase CHECK (phase IN ('setup', 'configure', 'wait', 'aggregate', 'evaluate', 'idle')), 
	CONSTRAINT ck_round_phases_never_negative CHECK (wall_s >= 0 AND metered_s >= 0 AND energy_kwh >= 0 AND cpu_kwh >= 0 AND gpu_kwh >= 0 AND ram_kwh >= 0), 
	CONSTRAINT fk_round_phases_rounds FOREIGN KEY(run_id, round, attempt) REFERENCES rounds (run_id, round, attempt) ON DELETE CASCADE
);
INSERT INTO "round_phases" VALUES('20260102-030405-abcdef',1,1,0,'wait',60.0,60.0,0.001,NULL,NULL,NULL,0,NULL,NULL);
INSERT INTO "round_phases" VALUES('20260102-030405-abcdef',2,1,0,'wait',60.0,60.0,0.001,NULL,NULL,NULL,0,NULL,NULL);
INSERT INTO "round_phases" VALUES('20260102-030405-abcdef',3,1,0,'wait',60.0,60.0,0.001,NULL,NULL,NULL,0,NULL,NULL);
CREATE TABLE rounds (
	run_id TEXT NOT NULL, 
	round INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	revision INTEGER NOT NULL, 
	closed BOOLEAN NOT NULL, 
	tracked BOOLEAN NOT NULL, 
	status TEXT NOT NULL, 
	reason TEXT, 
	started_at VARCHAR(27) NOT NULL, 
	ended_at VARCHAR(27) NOT NULL, 
	duration_s DOUBLE NOT NULL, 
	connected BIGINT, 
	participants BIGINT NOT NULL, 
	reported BIGINT, 
	missing BIGINT, 
	rejected BIGINT, 
	failed BIGINT NOT NULL, 
	coverage DOUBLE, 
	complete BOOLEAN, 
	evaluate_reported BIGINT, 
	reports_without_host BIGINT, 
	reports_accepted BIGINT NOT NULL, 
	reports_rejected BIGINT NOT NULL, 
	reports_repeated BIGINT NOT NULL, 
	reports_late BIGINT NOT NULL, 
	metered_share DOUBLE, 
	host_energy_kwh DOUBLE, 
	server_energy_kwh DOUBLE, 
	clients_energy_kwh DOUBLE, 
	clients_energy_reports BIGINT, 
	server_emissions_kg DOUBLE, 
	clients_emissions_kg DOUBLE, 
	total_emissions_kg DOUBLE, 
	cumulative_emissions_kg DOUBLE, 
	clients_reported_emissions_kg DOUBLE, 
	server_carbon_intensity_g_per_kwh DOUBLE NOT NULL, 
	intensity_source TEXT NOT NULL, 
	intensity_year INTEGER, 
	country TEXT, 
	pue DOUBLE NOT NULL, 
	server_scope TEXT NOT NULL, 
	server_sensor TEXT NOT NULL, 
	server_share DOUBLE, 
	network_kwh_per_gb DOUBLE, 
	bytes_to_clients BIGINT, 
	bytes_from_clients BIGINT, 
	communication_emissions_kg_estimated DOUBLE, 
	imputed_emissions_kg DOUBLE, 
	estimated_total_emissions_kg DOUBLE, 
	privacy_epsilon DOUBLE, 
	setup_energy_kwh DOUBLE, 
	configure_energy_kwh DOUBLE, 
	wait_energy_kwh DOUBLE, 
	aggregate_energy_kwh DOUBLE, 
	evaluate_energy_kwh DOUBLE, 
	idle_energy_kwh DOUBLE, 
	client_histogram TEXT NOT NULL, 
	train_metrics TEXT NOT NULL, 
	evaluate_metrics TEXT NOT NULL, client_rows BOOLEAN DEFAULT 1 NOT NULL, impute_missing BOOLEAN DEFAULT 0 NOT NULL, imputed_low_emissions_kg DOUBLE, imputed_high_emissions_kg DOUBLE, imputed_clients BIGINT, reports_flagged BIGINT, flagged_emissions_kg DOUBLE, evidence_sha256 TEXT, 
	CONSTRAINT pk_rounds PRIMARY KEY (run_id, round, attempt), 
	CONSTRAINT ck_rounds_server_scope CHECK (server_scope IN ('machine', 'allocation', 'process', 'unknown')), 
	CONSTRAINT ck_rounds_server_sensor CHECK (server_sensor IN ('rapl', 'nvml', 'mixed', 'model', 'constant', 'unknown')), 
	CONSTRAINT ck_rounds_status CHECK (status IN ('running', 'completed', 'partial', 'failed', 'interrupted') AND NOT (closed AND status = 'running')), 
	CONSTRAINT ck_rounds_attempt CHECK (attempt >= 1), 
	CONSTRAINT ck_rounds_coverage CHECK (coverage BETWEEN 0 AND 1), 
	CONSTRAINT ck_rounds_pue CHECK (pue >= 1), 
	CONSTRAINT ck_rounds_never_negative CHECK (round >= 0 AND revision >= 0 AND connected >= 0 AND metered_share >= 0 AND host_energy_kwh >= 0 AND server_energy_kwh >= 0 AND clients_energy_kwh >= 0 AND server_emissions_kg >= 0 AND clients_emissions_kg >= 0 AND total_emissions_kg >= 0 AND cumulative_emissions_kg >= 0 AND clients_reported_emissions_kg >= 0 AND server_carbon_intensity_g_per_kwh >= 0 AND network_kwh_per_gb >= 0 AND bytes_to_clients >= 0 AND bytes_from_clients >= 0 AND privacy_epsilon >= 0 AND setup_energy_kwh >= 0 AND configure_energy_kwh >= 0 AND wait_energy_kwh >= 0 AND aggregate_energy_kwh >= 0 AND evaluate_energy_kwh >= 0 AND idle_energy_kwh >= 0), 
	CONSTRAINT ck_rounds_server_share CHECK (server_share BETWEEN 0 AND 1), 
	CONSTRAINT fk_rounds_runs FOREIGN KEY(run_id) REFERENCES runs (run_id) ON DELETE CASCADE
);
INSERT INTO "rounds" VALUES('20260102-030405-abcdef',1,1,0,1,1,'completed',NULL,'2026-01-02T03:05:05.000000Z','2026-01-02T03:06:05.000000Z',60.0,3,3,1,1,1,0,3.33333333333333314829e-01,0,0,0,1,1,0,0,1.0,0.001,0.001,NULL,0,1.74000000000000028125e-04,0.5,0.500174,0.500174,0.5,174.0,'made up',2024,'ESP',1.0,'machine','constant',NULL,NULL,NULL,NULL,NULL,NULL,NULL,1.25,NULL,NULL,0.001,NULL,NULL,NULL,'{"counts": [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], "sum_g": 500.0}','{"accuracy": 0.5}','{}',1,0,NULL,NULL,NULL,0,0.0,'b8ae4d94fcab7542b13d477f7c6667140400578dde641090ee97ba34c2de0987');
INSERT INTO "rounds" VALUES('20260102-030405-abcdef',2,1,0,0,1,'running',NULL,'2026-01-02T03:06:05.000000Z','2026-01-02T03:07:05.000000Z',60.0,0,0,0,0,0,0,NULL,1,0,0,0,0,0,0,1.0,0.001,0.001,0.0,0,1.74000000000000028125e-04,0.0,1.74000000000000028125e-04,NULL,0.0,174.0,'made up',2024,'ESP',1.0,'machine','constant',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0.001,NULL,NULL,NULL,'{"counts": [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "sum_g": 0.0}','{}','{}',1,0,NULL,NULL,NULL,0,0.0,NULL);
INSERT INTO "rounds" VALUES('20260102-030405-abcdef',3,1,0,1,1,'completed',NULL,'2026-01-02T03:07:05.000000Z','2026-01-02T03:08:05.000000Z',60.0,0,0,0,0,0,0,NULL,1,0,0,0,0,0,0,1.0,0.001,0.001,0.0,0,1.74000000000000028125e-04,0.0,1.74000000000000028125e-04,0.500348,0.0,174.0,'made up',2024,'ESP',1.0,'machine','constant',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0.001,NULL,NULL,NULL,'{"counts": [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "sum_g": 0.0}','{}','{}',1,0,NULL,NULL,NULL,0,0.0,'0cd92f5b48b098c742d1606379a8a1836282d2f4ce077e14dc0fe8af95f56d8b');
CREATE TABLE run_deliveries (
	service TEXT NOT NULL, 
	run_id TEXT NOT NULL, 
	ended_at VARCHAR(27), 
	complete BOOLEAN NOT NULL, 
	CONSTRAINT pk_run_deliveries PRIMARY KEY (service, run_id), 
	CONSTRAINT fk_run_deliveries_runs FOREIGN KEY(run_id) REFERENCES runs (run_id) ON DELETE CASCADE
);
INSERT INTO "run_deliveries" VALUES('http://127.0.0.1:9464','20260102-030405-abcdef',NULL,0);
CREATE TABLE run_totals (
	run_id TEXT NOT NULL, 
	rounds_completed BIGINT NOT NULL, 
	rounds_partial BIGINT NOT NULL, 
	rounds_failed BIGINT NOT NULL, 
	rounds_interrupted BIGINT NOT NULL, 
	server_energy_kwh DOUBLE, 
	clients_energy_kwh DOUBLE, 
	server_emissions_kg DOUBLE, 
	clients_emissions_kg DOUBLE, 
	total_emissions_kg DOUBLE, 
	setup_energy_kwh DOUBLE, 
	configure_energy_kwh DOUBLE, 
	wait_energy_kwh DOUBLE, 
	aggregate_energy_kwh DOUBLE, 
	evaluate_energy_kwh DOUBLE, 
	idle_energy_kwh DOUBLE, 
	reports_accepted BIGINT NOT NULL, 
	reports_rejected BIGINT NOT NULL, 
	reports_repeated BIGINT NOT NULL, 
	reports_late BIGINT NOT NULL, 
	reports_without_host BIGINT NOT NULL, 
	bytes_to_clients BIGINT, 
	bytes_from_clients BIGINT, 
	client_histogram TEXT NOT NULL, communication_emissions_kg_estimated DOUBLE, imputed_emissions_kg DOUBLE, imputed_low_emissions_kg DOUBLE, imputed_high_emissions_kg DOUBLE, 
	CONSTRAINT pk_run_totals PRIMARY KEY (run_id), 
	CONSTRAINT ck_run_totals_never_negative CHECK (server_energy_kwh >= 0 AND clients_energy_kwh >= 0 AND server_emissions_kg >= 0 AND clients_emissions_kg >= 0 AND total_emissions_kg >= 0 AND setup_energy_kwh >= 0 AND configure_energy_kwh >= 0 AND wait_energy_kwh >= 0 AND aggregate_energy_kwh >= 0 AND evaluate_energy_kwh >= 0 AND idle_energy_kwh >= 0 AND reports_accepted >= 0 AND reports_rejected >= 0 AND reports_repeated >= 0 AND reports_late >= 0), 
	CONSTRAINT fk_run_totals_runs FOREIGN KEY(run_id) REFERENCES runs (run_id) ON DELETE CASCADE
);
INSERT INTO "run_totals" VALUES('20260102-030405-abcdef',2,0,0,0,0.002,NULL,3.4800000000000005625e-04,0.5,0.500348,NULL,NULL,0.002,NULL,NULL,NULL,1,1,0,0,0,NULL,NULL,'{"counts": [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], "sum_g": 500.0}',NULL,NULL,NULL,NULL);
CREATE TABLE runs (
	run_id TEXT NOT NULL, 
	run_name TEXT NOT NULL, 
	flower_run_id TEXT, 
	started_at VARCHAR(27) NOT NULL, 
	rounds_planned INTEGER, 
	strategy TEXT NOT NULL, 
	privacy TEXT NOT NULL, 
	tracked BOOLEAN NOT NULL, 
	server_carbon_intensity_g_per_kwh DOUBLE NOT NULL, 
	intensity_source TEXT NOT NULL, 
	intensity_year INTEGER, 
	country TEXT, 
	pue DOUBLE NOT NULL, 
	server_scope TEXT NOT NULL, 
	server_sensor TEXT NOT NULL, 
	server_share DOUBLE, 
	network_kwh_per_gb DOUBLE, 
	server_host_id TEXT, 
	tracker TEXT, 
	value_metric TEXT NOT NULL, 
	metric_names TEXT NOT NULL, 
	software TEXT NOT NULL, 
	status TEXT NOT NULL, 
	reason TEXT, 
	ended_at VARCHAR(27), 
	owner TEXT, 
	last_seen_at VARCHAR(27) NOT NULL, impute_missing BOOLEAN DEFAULT 0 NOT NULL, budget_kg DOUBLE, on_budget TEXT DEFAULT 'warn' NOT NULL, client_rows BOOLEAN DEFAULT 1 NOT NULL, sha256 TEXT, writer TEXT, pruned_at VARCHAR(27), lower_is_better BOOLEAN DEFAULT 0 NOT NULL, 
	CONSTRAINT pk_runs PRIMARY KEY (run_id), 
	CONSTRAINT ck_runs_ended CHECK ((status = 'running') = (ended_at IS NULL)), 
	CONSTRAINT ck_runs_server_scope CHECK (server_scope IN ('machine', 'allocation', 'process', 'unknown')), 
	CONSTRAINT ck_runs_server_sensor CHECK (server_sensor IN ('rapl', 'nvml', 'mixed', 'model', 'constant', 'unknown')), 
	CONSTRAINT ck_runs_status CHECK (status IN ('running', 'completed', 'failed', 'interrupted', 'stopped_on_budget')), 
	CONSTRAINT ck_runs_pue CHECK (pue >= 1), 
	CONSTRAINT ck_runs_never_negative CHECK (rounds_planned >= 0 AND server_carbon_intensity_g_per_kwh >= 0 AND network_kwh_per_gb >= 0), 
	CONSTRAINT ck_runs_server_share CHECK (server_share BETWEEN 0 AND 1)
);
INSERT INTO "runs" VALUES('20260102-030405-abcdef','digits',NULL,'2026-01-02T03:04:05.000000Z',5,'FedAvg','none',1,174.0,'made up',2024,'ESP',1.0,'machine','constant',NULL,NULL,'0123456789ab','made up','accuracy','["accuracy"]','{"fedserver-telemetry": "0"}','running',NULL,NULL,'test-host/1/1.made-up','2026-01-02T03:04:05.000000Z',0,NULL,'warn',1,NULL,NULL,NULL,0);
CREATE TABLE telemetry_schema (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT telemetry_schema_pkc PRIMARY KEY (version_num)
);
INSERT INTO "telemetry_schema" VALUES('0006');
CREATE TABLE training_metrics (
	run_id TEXT NOT NULL, 
	round INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	split TEXT NOT NULL, 
	name TEXT NOT NULL, 
	value DOUBLE NOT NULL, 
	CONSTRAINT pk_training_metrics PRIMARY KEY (run_id, round, attempt, split, name), 
	CONSTRAINT ck_training_metrics_split CHECK (split IN ('train', 'evaluate')), 
	CONSTRAINT fk_training_metrics_rounds FOREIGN KEY(run_id, round, attempt) REFERENCES rounds (run_id, round, attempt) ON DELETE CASCADE
);
INSERT INTO "training_metrics" VALUES('20260102-030405-abcdef',1,1,'train','accuracy',0.5);
CREATE INDEX ix_runs_started_at_run_id ON runs (started_at, run_id);
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
CREATE UNIQUE INDEX ix_api_tokens_live_label ON api_tokens (label) WHERE revoked_at IS NULL;
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
COMMIT;
