-- So that lists of jobs find what they show, the newest first, whichever filter narrows them, and look at nothing else.

-- What a line of a list says of the job itself: the row in `jobs` has the script in it, and is not touched.
DROP INDEX jobs_tenant;
CREATE INDEX jobs_tenant ON jobs (tenant, id, operator, submitted, script_sha256, script_name, script_version);
CREATE INDEX jobs_operator ON jobs (tenant, operator, id);
CREATE INDEX jobs_of_script ON jobs (tenant, script_name, id) WHERE script_name IS NOT NULL;
CREATE INDEX jobs_submitted ON jobs (tenant, submitted, id);

-- Both change when an operation begins and when it ends, and never between.
CREATE INDEX operations_outcome ON operations (tenant, state, job) WHERE ended = 1;
CREATE INDEX operations_unended ON operations (tenant, job) WHERE ended = 0;
CREATE INDEX operations_machine ON operations (tenant, machine, job) WHERE machine IS NOT NULL;
