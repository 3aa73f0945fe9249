-- What is looked up for each operation, or for each job at every end of one, without reading what is large.

-- A job's text stands before all of these in its row.
CREATE INDEX jobs_heads ON jobs (id, tenant, not_after, script_sha256, supersede);

-- What rules of rollouts count.
CREATE INDEX operations_on_machines ON operations (tenant, job, batch, machine, started, ended, state)
    WHERE batch IS NOT NULL AND machine IS NOT NULL
        AND (started IS NOT NULL OR (ended = 0 AND state IN ('accepted', 'checking')));
CREATE INDEX operations_groups ON operations (tenant, job, result_group, batch) WHERE result_group IS NOT NULL;
CREATE INDEX operations_ungrouped ON operations (tenant, job, batch, ended, result_group)
    WHERE batch IS NOT NULL AND ended = 1 AND result_group IS NULL;
