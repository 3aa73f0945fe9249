//! What is recorded.

use serde_json::{Map, Value};
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::Ending;
use sluice_protocol::ids::{JobId, OperationId};

use crate::operators::{Actor, Standing};

/// The events of the audit log. Words are never changed, only added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the words say it")]
pub enum EventKind {
    HostInitialized,
    AuthenticationFailed,
    PermissionDenied,
    RequestRefused,
    RequestRepeated,
    ScriptExecutionAttempt,
    ScriptQueued,
    ScriptStarted,
    ScriptGateVerdict,
    ScriptExecuted,
    ScriptSecurityThreat,
    ScriptBlocked,
    ScriptExecutionError,
    ScriptCancelRequested,
    ScriptCanceled,
    ScriptExpired,
    ScriptLateReport,
    ScriptApproved,
    ScriptApprovalRefused,
    ScriptAdded,
    ScriptVersionAdded,
    ScriptArchived,
    ScriptRedacted,
    MachineEnrolled,
    MachineEnrollmentRefused,
    MachineCertificateRenewed,
    MachineRenamed,
    MachineTagged,
    MachineRevoked,
    MachineApproved,
    MachineDenied,
    MachineGateProblems,
    MachineProtocolViolation,
    MachineHistoryLost,
    MachineQuarantined,
    MachineReleased,
    HostRestored,
    EnrollTokenCreated,
    EnrollTokenRevoked,
    TokenCreated,
    TokenRevoked,
    OperatorCreated,
    OperatorChanged,
    OperatorRemoved,
    RoleSet,
    RoleRemoved,
    PublisherTrusted,
    PublisherUntrusted,
    PluginInstalled,
    PluginRefused,
    PluginBound,
    PluginRevised,
    PluginRevisionFailed,
    PluginUnbound,
    ScriptScheduled,
    SchedulePaused,
    ScheduleResumed,
    ScheduleRemoved,
    ScheduleFired,
    ScheduleMissed,
    JobPreviewed,
    JobHeld,
    JobApproved,
    JobDenied,
    ApprovalPolicySet,
    StandingApprovalAdded,
    StandingApprovalApproved,
    StandingApprovalRevoked,
    JobHalted,
    JobReleased,
    JobStopped,
    JobPaused,
    JobResumed,
    JobTargetsFixed,
    LockdownStarted,
    LockdownLifted,
    WindowAdded,
    WindowRemoved,
    SecretSet,
    SecretRotated,
    SecretRevoked,
    TenantCreated,
    TenantRenamed,
    TenantArchived,
    GrantAdded,
    GrantRevoked,
    ProviderAccessAllowed,
    ProviderAccessDenied,
    ScriptOffered,
    ScriptOfferWithdrawn,
}

impl EventKind {
    /// The word in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HostInitialized => "host_initialized",
            Self::AuthenticationFailed => "authentication_failed",
            Self::PermissionDenied => "permission_denied",
            Self::RequestRefused => "request_refused",
            Self::RequestRepeated => "request_repeated",
            Self::ScriptExecutionAttempt => "script_execution_attempt",
            Self::ScriptQueued => "script_queued",
            Self::ScriptStarted => "script_started",
            Self::ScriptGateVerdict => "script_gate_verdict",
            Self::ScriptExecuted => "script_executed",
            Self::ScriptSecurityThreat => "script_security_threat",
            Self::ScriptBlocked => "script_blocked",
            Self::ScriptExecutionError => "script_execution_error",
            Self::ScriptCancelRequested => "script_cancel_requested",
            Self::ScriptCanceled => "script_canceled",
            Self::ScriptExpired => "script_expired",
            Self::ScriptLateReport => "script_late_report",
            Self::ScriptApproved => "script_approved",
            Self::ScriptApprovalRefused => "script_approval_refused",
            Self::ScriptAdded => "script_added",
            Self::ScriptVersionAdded => "script_version_added",
            Self::ScriptArchived => "script_archived",
            Self::ScriptRedacted => "script_redacted",
            Self::MachineEnrolled => "machine_enrolled",
            Self::MachineEnrollmentRefused => "machine_enrollment_refused",
            Self::MachineCertificateRenewed => "machine_certificate_renewed",
            Self::MachineRenamed => "machine_renamed",
            Self::MachineTagged => "machine_tagged",
            Self::MachineRevoked => "machine_revoked",
            Self::MachineApproved => "machine_approved",
            Self::MachineDenied => "machine_denied",
            Self::MachineGateProblems => "machine_gate_problems",
            Self::MachineProtocolViolation => "machine_protocol_violation",
            Self::MachineHistoryLost => "machine_history_lost",
            Self::MachineQuarantined => "machine_quarantined",
            Self::MachineReleased => "machine_released",
            Self::HostRestored => "host_restored",
            Self::EnrollTokenCreated => "enroll_token_created",
            Self::EnrollTokenRevoked => "enroll_token_revoked",
            Self::TokenCreated => "token_created",
            Self::TokenRevoked => "token_revoked",
            Self::OperatorCreated => "operator_created",
            Self::OperatorChanged => "operator_changed",
            Self::OperatorRemoved => "operator_removed",
            Self::RoleSet => "role_set",
            Self::RoleRemoved => "role_removed",
            Self::PublisherTrusted => "publisher_trusted",
            Self::PublisherUntrusted => "publisher_untrusted",
            Self::PluginInstalled => "plugin_installed",
            Self::PluginRefused => "plugin_refused",
            Self::PluginBound => "plugin_bound",
            Self::PluginRevised => "plugin_revised",
            Self::PluginRevisionFailed => "plugin_revision_failed",
            Self::PluginUnbound => "plugin_unbound",
            Self::ScriptScheduled => "script_scheduled",
            Self::SchedulePaused => "schedule_paused",
            Self::ScheduleResumed => "schedule_resumed",
            Self::ScheduleRemoved => "schedule_removed",
            Self::ScheduleFired => "schedule_fired",
            Self::ScheduleMissed => "schedule_missed",
            Self::JobPreviewed => "job_previewed",
            Self::JobHeld => "job_held",
            Self::JobApproved => "job_approved",
            Self::JobDenied => "job_denied",
            Self::ApprovalPolicySet => "approval_policy_set",
            Self::StandingApprovalAdded => "standing_approval_added",
            Self::StandingApprovalApproved => "standing_approval_approved",
            Self::StandingApprovalRevoked => "standing_approval_revoked",
            Self::JobHalted => "job_halted",
            Self::JobReleased => "job_released",
            Self::JobStopped => "job_stopped",
            Self::JobPaused => "job_paused",
            Self::JobResumed => "job_resumed",
            Self::JobTargetsFixed => "job_targets_fixed",
            Self::LockdownStarted => "lockdown_started",
            Self::LockdownLifted => "lockdown_lifted",
            Self::WindowAdded => "window_added",
            Self::WindowRemoved => "window_removed",
            Self::SecretSet => "secret_set",
            Self::SecretRotated => "secret_rotated",
            Self::SecretRevoked => "secret_revoked",
            Self::TenantCreated => "tenant_created",
            Self::TenantRenamed => "tenant_renamed",
            Self::TenantArchived => "tenant_archived",
            Self::GrantAdded => "grant_added",
            Self::GrantRevoked => "grant_revoked",
            Self::ProviderAccessAllowed => "provider_access_allowed",
            Self::ProviderAccessDenied => "provider_access_denied",
            Self::ScriptOffered => "script_offered",
            Self::ScriptOfferWithdrawn => "script_offer_withdrawn",
        }
    }

    /// What the end of an operation is recorded as.
    #[must_use]
    pub const fn of_ending(ending: &Ending) -> Self {
        match ending {
            Ending::Succeeded | Ending::ExitCode(_) | Ending::Signal(_) | Ending::TimedOut(_) => {
                Self::ScriptExecuted
            }
            Ending::ThreatFound(_) => Self::ScriptSecurityThreat,
            Ending::Blocked(_) | Ending::Unsupported(_) => Self::ScriptBlocked,
            Ending::Canceled(_) => Self::ScriptCanceled,
            Ending::Expired => Self::ScriptExpired,
            Ending::MachineNotFound
            | Ending::AgentNotConnected
            | Ending::Error(_)
            | Ending::Interrupted => Self::ScriptExecutionError,
        }
    }
}

/// An entry before it has its place in the chain.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The machine's name, or what was typed.
    pub machine: Option<String>,
    /// The job.
    pub job: Option<JobId>,
    /// The operation.
    pub operation: Option<OperationId>,
    /// Who did it.
    pub operator: Option<String>,
    /// Where it came from: an operator's address, `agent` or `host`.
    pub source: String,
    /// Of the bytes submitted.
    pub script_sha256: Option<Digest>,
    /// Of what the gates saw.
    pub bundle_sha256: Option<Digest>,
    /// What there is to say beyond. Never a secret, a token or a script's text.
    pub details: Map<String, Value>,
}

impl Event {
    /// Something that the host did by itself.
    #[must_use]
    pub fn by_host(kind: EventKind) -> Self {
        Self::from_source(kind, "host")
    }

    /// Something that a machine said.
    #[must_use]
    pub fn by_agent(kind: EventKind, machine: &str) -> Self {
        Self {
            machine: Some(machine.to_owned()),
            ..Self::from_source(kind, "agent")
        }
    }

    /// Something that an operator did, with the grant where it is by one.
    #[must_use]
    pub fn by(kind: EventKind, actor: &Actor) -> Self {
        let event = Self {
            operator: Some(actor.name.clone()),
            ..Self::from_source(kind, &actor.source)
        };
        match actor.standing {
            Standing::Own(_) => event,
            Standing::Granted { grant, .. } => event.detail("by_grant", grant.to_string()),
        }
    }

    /// Something that came from somewhere else.
    #[must_use]
    pub fn from_source(kind: EventKind, source: &str) -> Self {
        Self {
            kind,
            machine: None,
            job: None,
            operation: None,
            operator: None,
            source: source.to_owned(),
            script_sha256: None,
            bundle_sha256: None,
            details: Map::new(),
        }
    }

    /// About this machine.
    #[must_use]
    pub fn on(mut self, machine: &str) -> Self {
        self.machine = Some(machine.to_owned());
        self
    }

    /// About this job.
    #[must_use]
    pub const fn of_job(mut self, job: JobId) -> Self {
        self.job = Some(job);
        self
    }

    /// About this operation.
    #[must_use]
    pub const fn of_operation(mut self, operation: OperationId) -> Self {
        self.operation = Some(operation);
        self
    }

    /// About this script.
    #[must_use]
    pub const fn with_script(mut self, sha256: Digest) -> Self {
        self.script_sha256 = Some(sha256);
        self
    }

    /// About this bundle.
    #[must_use]
    pub const fn with_bundle(mut self, sha256: Option<Digest>) -> Self {
        self.bundle_sha256 = sha256;
        self
    }

    /// A detail.
    #[must_use]
    pub fn detail(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.details.insert(key.to_owned(), value.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use sluice_protocol::ending::Block;
    use sluice_protocol::units::Span;

    use super::*;

    #[test]
    fn the_end_of_an_operation_has_one_name_in_both_logs() {
        for ending in [
            Ending::Succeeded,
            Ending::ExitCode(3),
            Ending::TimedOut(Span::seconds(1)),
            Ending::ThreatFound(String::new()),
            Ending::Blocked(Block::machine_policy("x")),
            Ending::Unsupported(String::new()),
            Ending::Canceled(String::new()),
            Ending::Expired,
            Ending::MachineNotFound,
            Ending::AgentNotConnected,
            Ending::Error(String::new()),
            Ending::Interrupted,
        ] {
            assert_eq!(EventKind::of_ending(&ending).as_str(), ending.audit_event());
        }
    }
}
