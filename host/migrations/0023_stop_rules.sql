-- Rules of rollouts besides that on failures, each a number or a percentage; and how many of each were there when one was resumed.
ALTER TABLE rollouts ADD COLUMN stop_on_timeouts TEXT;
ALTER TABLE rollouts ADD COLUMN stop_on_dark TEXT;
-- After how long away a machine is dark, in milliseconds.
ALTER TABLE rollouts ADD COLUMN dark_after INTEGER;
ALTER TABLE rollouts ADD COLUMN forgiven_timeouts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rollouts ADD COLUMN forgiven_dark INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rollouts ADD COLUMN stop_on_new_groups TEXT;
ALTER TABLE rollouts ADD COLUMN forgiven_groups INTEGER NOT NULL DEFAULT 0;
-- Of what it came to, as results are compared: of operations that have ended, where a rule of their rollout asks for it.
ALTER TABLE operations ADD COLUMN result_group BLOB;
-- failures, timeouts, dark or groups: the rule that paused it. Null where an operator did.
ALTER TABLE rollouts ADD COLUMN paused_rule TEXT;
