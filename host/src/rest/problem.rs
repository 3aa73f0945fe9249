//! The one table from what went wrong to what a client sees: status, code, and a sentence.

use std::any::Any;
use std::error::Error;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use sluice_api_types::problem::{PROBLEM_JSON, Problem};
use sluice_protocol::causes::Causes;

use crate::approvals::{ChangePolicyError, StandingError};
use crate::blobs::BlobError;
use crate::fleet::{ChangeError, EnrollError};
use crate::jobs::{ApproveError, CancelError, LockdownError, NotOpen, SubmitError};
use crate::library::{self, ArchiveError, ChooseError, RedactError};
use crate::operators::{
    AuthenticationError, ChangeOperatorError, ChangeRoleError, CreateTokenError, Denied, GrantError,
};
use crate::plugins::{BindError, InstallError, TrustError};
use crate::provider::{AccessError, ProviderError};
use crate::receipts::{BacktestError, Busy, ReplayError};
use crate::rollouts;
use crate::schedules;
use crate::secrets::{ChangeSecretError, UseError};
use crate::store::StoreError;
use crate::windows::{self, HoldError};

/// A request that was refused, or failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    status: StatusCode,
    code: &'static str,
    detail: String,
}

impl Refusal {
    /// The body or a parameter makes no sense.
    #[must_use]
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-request", detail)
    }

    /// Unknown, or another tenant's: the answer is the same.
    #[must_use]
    pub fn not_found(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// The tenant that a request names is not the operator's.
    #[must_use]
    pub fn no_tenant(name: &str) -> Self {
        Self::not_found(
            "tenant-not-found",
            format!("there is no tenant {} for this token", name.escape_debug()),
        )
    }

    /// No such route.
    #[must_use]
    pub fn no_route() -> Self {
        Self::not_found(
            "route-not-found",
            "there is nothing at this path; see /v1/openapi.json",
        )
    }

    /// The route is there, and takes other methods.
    #[must_use]
    pub fn no_method() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "this path takes other methods; see /v1/openapi.json",
        )
    }

    /// The body is larger than the route takes.
    #[must_use]
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail)
    }

    /// No token, where one is needed.
    #[must_use]
    pub fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
    }

    /// A handler panicked.
    pub(super) fn bug() -> Self {
        tracing::error!("a request met a bug");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the host met a bug; its log says more",
        )
    }

    /// Roles that were named are none.
    fn of_grant(error: &GrantError, detail: String) -> Self {
        match error {
            GrantError::NoRole(_) => Self::not_found("role-not-found", detail),
            GrantError::TooMany => Self::invalid(detail),
            GrantError::Store(error) => Self::internal("store-failed", error),
        }
    }

    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
        }
    }

    /// A failure of the host itself: the cause goes to its log, not to the client.
    fn internal(code: &'static str, error: &(dyn Error + 'static)) -> Self {
        tracing::error!(error = %Causes(error), code, "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            code,
            format!("{error}; nothing was changed; the host's log says more"),
        )
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let problem = Problem::new(self.status.as_u16(), title, self.code, self.detail);
        let body = serde_json::to_string(&problem).unwrap_or_default();
        let mut response =
            (self.status, [(header::CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                header::HeaderValue::from_static("Bearer"),
            );
        }
        response
    }
}

/// A handler panicked: a bug. The request's transaction, if it had one, was not committed by it.
pub(super) fn after_panic(_panic: Box<dyn Any + Send>) -> Response {
    Refusal::bug().into_response()
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Stopped => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "stopping",
                format!("{error}; try again later"),
            ),
            error => Self::internal("store-failed", &error),
        }
    }
}

impl From<Denied> for Refusal {
    fn from(error: Denied) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "permission-denied",
            format!("{error}; an administrator can give a role or make a token that has it"),
        )
    }
}

impl From<AuthenticationError> for Refusal {
    fn from(error: AuthenticationError) -> Self {
        match error {
            AuthenticationError::Store(error) => error.into(),
            AuthenticationError::NoTenant(name) => Self::no_tenant(&name),
            error => Self::unauthenticated(format!(
                "{error}; nothing was done; log in with a good one (sluice login)"
            )),
        }
    }
}

impl From<SubmitError> for Refusal {
    fn from(error: SubmitError) -> Self {
        let detail = error.to_string();
        match error {
            SubmitError::Denied(error) => error.into(),
            SubmitError::Request(_) => Self::invalid(detail),
            SubmitError::Script(error) => error.into(),
            SubmitError::NoTenant(_) => Self::not_found("tenant-not-found", detail),
            SubmitError::NoMachines => Self::not_found("no-machines", detail),
            SubmitError::TooManyMachines => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "too-many-machines",
                detail,
            ),
            SubmitError::NoAttachment(_) => {
                Self::new(StatusCode::CONFLICT, "attachment-missing", detail)
            }
            SubmitError::Secret(error) => error.into(),
            SubmitError::InvalidKey => {
                Self::new(StatusCode::BAD_REQUEST, "idempotency-key-invalid", detail)
            }
            SubmitError::KeyReused(_) => {
                Self::new(StatusCode::CONFLICT, "idempotency-key-reused", detail)
            }
            SubmitError::ApprovedBefore(_) => {
                Self::new(StatusCode::CONFLICT, "approved-before", detail)
            }
            SubmitError::Windows(HoldError::NoWindow(_)) => {
                Self::not_found("window-not-found", detail)
            }
            SubmitError::Windows(HoldError::Store(error)) => error.into(),
            SubmitError::Windows(_) => Self::new(StatusCode::CONFLICT, "window-too-late", detail),
            SubmitError::Locked(_) => Self::new(StatusCode::LOCKED, "locked-down", detail),
            SubmitError::ApprovalChanged => {
                Self::new(StatusCode::CONFLICT, "approval-changed", detail)
            }
            SubmitError::LaterNeedsApproval(_) => {
                Self::new(StatusCode::CONFLICT, "later-needs-approval", detail)
            }
            SubmitError::TooManyLater(_) | SubmitError::LaterFull(_) => {
                Self::new(StatusCode::CONFLICT, "too-many-later", detail)
            }
            SubmitError::LaterSuperseded(_) => {
                Self::new(StatusCode::CONFLICT, "superseded", detail)
            }
            SubmitError::Store(error) => error.into(),
        }
    }
}

impl From<windows::ChangeError> for Refusal {
    fn from(error: windows::ChangeError) -> Self {
        use windows::ChangeError as E;

        let detail = error.to_string();
        match error {
            E::Denied(error) => error.into(),
            E::NoWindow(_) => Self::not_found("window-not-found", detail),
            E::Taken(_) => Self::new(StatusCode::CONFLICT, "window-exists", detail),
            E::TooMany => Self::new(StatusCode::CONFLICT, "too-many-windows", detail),
            E::Name(_) | E::Tags | E::TagsAndAll | E::Calendar(_) | E::Zone(_) | E::Tag(_) => {
                Self::invalid(detail)
            }
            E::Store(error) => error.into(),
        }
    }
}

impl From<UseError> for Refusal {
    fn from(error: UseError) -> Self {
        let detail = error.to_string();
        match error {
            UseError::NoSecret(_) => Self::not_found("secret-not-found", detail),
            UseError::Revoked(_) => Self::new(StatusCode::CONFLICT, "secret-revoked", detail),
            UseError::Rotated(_) => Self::new(StatusCode::CONFLICT, "secret-rotated", detail),
            UseError::Unreadable(_) => Self::new(StatusCode::CONFLICT, "secret-unreadable", detail),
            UseError::TooMuch { .. } => Self::too_large(detail),
            UseError::Store(error) => error.into(),
        }
    }
}

impl From<ChangeSecretError> for Refusal {
    fn from(error: ChangeSecretError) -> Self {
        use ChangeSecretError as E;
        let detail = error.to_string();
        match error {
            E::Name(_) | E::Value(_) => Self::invalid(detail),
            E::NoSecret(_) => Self::not_found("secret-not-found", detail),
            E::TooMany => Self::new(StatusCode::CONFLICT, "too-many-secrets", detail),
            E::Random(error) => Self::internal("no-randomness", &error),
            E::Store(error) => error.into(),
        }
    }
}

impl From<ChooseError> for Refusal {
    fn from(error: ChooseError) -> Self {
        let detail = error.to_string();
        match error {
            ChooseError::NoScript(_) => Self::not_found("script-not-found", detail),
            ChooseError::NoVersion { .. } => Self::not_found("script-version-not-found", detail),
            ChooseError::Archived(_) => Self::new(StatusCode::CONFLICT, "script-archived", detail),
            ChooseError::NotOffered(_) => {
                Self::new(StatusCode::CONFLICT, "script-not-offered", detail)
            }
            ChooseError::Redacted(_) => Self::new(StatusCode::CONFLICT, "script-redacted", detail),
            ChooseError::Store(error) => error.into(),
        }
    }
}

impl From<ProviderError> for Refusal {
    fn from(error: ProviderError) -> Self {
        use ProviderError as E;
        let detail = error.to_string();
        match error {
            E::Denied(error) => error.into(),
            E::NotTheProviders(_) => Self::new(
                StatusCode::FORBIDDEN,
                "not-the-providers-administrator",
                detail,
            ),
            E::Name(_) | E::NoRoles | E::End => Self::invalid(detail),
            E::Taken(_) => Self::new(StatusCode::CONFLICT, "tenant-exists", detail),
            E::NoTenant(_) => Self::not_found("tenant-not-found", detail),
            E::Own(_) => Self::new(StatusCode::CONFLICT, "tenant-is-the-providers", detail),
            E::Archived(_) => Self::new(StatusCode::CONFLICT, "tenant-archived", detail),
            E::NamedByRole { .. } => {
                Self::new(StatusCode::CONFLICT, "tenant-named-by-role", detail)
            }
            E::NoOperator(_) => Self::not_found("operator-not-found", detail),
            E::Granted { .. } => Self::new(StatusCode::CONFLICT, "grant-exists", detail),
            E::NoScript(_) => Self::not_found("script-not-found", detail),
            E::NoVersion(_) => Self::not_found("script-version-not-found", detail),
            E::NoOffer(_) => Self::not_found("offer-not-found", detail),
            E::NoGrant(_) => Self::not_found("grant-not-found", detail),
            E::Role(error) => Self::of_grant(&error, detail),
            E::Store(error) => error.into(),
        }
    }
}

impl From<AccessError> for Refusal {
    fn from(error: AccessError) -> Self {
        let detail = error.to_string();
        match error {
            AccessError::Denied(error) => error.into(),
            AccessError::Provider(_) => {
                Self::new(StatusCode::CONFLICT, "tenant-is-the-providers", detail)
            }
            AccessError::ByGrant(_) | AccessError::ByInvitation(_) => Self::new(
                StatusCode::FORBIDDEN,
                "not-the-tenants-administrator",
                detail,
            ),
            AccessError::Store(error) => error.into(),
        }
    }
}

impl From<LockdownError> for Refusal {
    fn from(error: LockdownError) -> Self {
        let detail = error.to_string();
        match error {
            LockdownError::Denied(error) => error.into(),
            LockdownError::NotTheHosts(_) => {
                Self::new(StatusCode::FORBIDDEN, "not-the-hosts-administrator", detail)
            }
            LockdownError::Reason => Self::invalid(detail),
            LockdownError::Store(error) => error.into(),
        }
    }
}

impl From<library::AddError> for Refusal {
    fn from(error: library::AddError) -> Self {
        use library::AddError as E;
        let detail = error.to_string();
        match error {
            E::Name(_) | E::Providers(_) | E::Description | E::Request(_) | E::OtherSystems(_) => {
                Self::invalid(detail)
            }
            E::Archived(_) => Self::new(StatusCode::CONFLICT, "script-archived", detail),
            E::Redacted(_) => Self::new(StatusCode::CONFLICT, "script-redacted", detail),
            E::Store(error) => error.into(),
        }
    }
}

impl From<schedules::AddError> for Refusal {
    fn from(error: schedules::AddError) -> Self {
        use schedules::AddError as E;
        let detail = error.to_string();
        match error {
            E::Denied(error) => error.into(),
            E::Plan(_) => Self::invalid(detail),
            E::Job(error) => Self {
                detail,
                ..error.into()
            },
            E::Taken(_) => Self::new(StatusCode::CONFLICT, "schedule-name-taken", detail),
            E::TooMany => Self::new(StatusCode::CONFLICT, "too-many-schedules", detail),
            E::Store(error) => error.into(),
        }
    }
}

impl From<ArchiveError> for Refusal {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::NoScript(_) => Self::not_found("script-not-found", error.to_string()),
            ArchiveError::Providers(_) => Self::new(
                StatusCode::CONFLICT,
                "script-is-the-providers",
                error.to_string(),
            ),
            ArchiveError::Store(error) => error.into(),
        }
    }
}

impl From<RedactError> for Refusal {
    fn from(error: RedactError) -> Self {
        match error {
            RedactError::NoVersion { .. } => {
                Self::not_found("script-version-not-found", error.to_string())
            }
            RedactError::Providers(_) => Self::new(
                StatusCode::CONFLICT,
                "script-is-the-providers",
                error.to_string(),
            ),
            RedactError::Store(error) => error.into(),
        }
    }
}

impl From<schedules::ChangeError> for Refusal {
    fn from(error: schedules::ChangeError) -> Self {
        use schedules::ChangeError as E;
        let detail = error.to_string();
        match error {
            E::NoSchedule(_) => Self::not_found("schedule-not-found", detail),
            E::Over(_) => Self::new(StatusCode::CONFLICT, "schedule-over", detail),
            E::Timing(_) => Self::new(StatusCode::CONFLICT, "schedule-unreadable", detail),
            E::Store(error) => error.into(),
        }
    }
}

impl From<CancelError> for Refusal {
    fn from(error: CancelError) -> Self {
        match error {
            CancelError::NoJob(_) => Self::not_found("job-not-found", error.to_string()),
            CancelError::Store(error) => error.into(),
        }
    }
}

impl From<rollouts::ChangeError> for Refusal {
    fn from(error: rollouts::ChangeError) -> Self {
        use rollouts::ChangeError as E;
        let detail = error.to_string();
        match error {
            E::NoJob(_) => Self::not_found("job-not-found", detail),
            E::NoRollout(_) => Self::new(StatusCode::CONFLICT, "no-rollout", detail),
            E::Over(_) => Self::new(StatusCode::CONFLICT, "rollout-over", detail),
            E::Store(error) => error.into(),
        }
    }
}

impl From<ChangePolicyError> for Refusal {
    fn from(error: ChangePolicyError) -> Self {
        match error {
            ChangePolicyError::Policy(_) => Self::invalid(error.to_string()),
            ChangePolicyError::Store(error) => error.into(),
        }
    }
}

impl From<StandingError> for Refusal {
    fn from(error: StandingError) -> Self {
        use StandingError as E;
        let detail = error.to_string();
        match error {
            E::NoStanding(_) => Self::not_found("standing-approval-not-found", detail),
            E::Script(error) => error.into(),
            E::Before(_) => Self::new(StatusCode::CONFLICT, "approved-before", detail),
            E::TooMany => Self::new(StatusCode::CONFLICT, "too-many", detail),
            E::NoScript
            | E::NoUser
            | E::NoTargets
            | E::Expires(_)
            | E::Names(_)
            | E::TooManyNames => Self::invalid(detail),
            E::Store(error) => error.into(),
        }
    }
}

impl From<ApproveError> for Refusal {
    fn from(error: ApproveError) -> Self {
        use ApproveError as E;
        let detail = error.to_string();
        let conflict = |code, detail| Self::new(StatusCode::CONFLICT, code, detail);
        match error {
            E::Denied(error) => error.into(),
            E::NoJob => Self::not_found("job-not-found", detail),
            E::Rollout => conflict("approval-of-rollout", detail),
            E::Own(_) | E::Made { .. } => Self::new(StatusCode::FORBIDDEN, "own-approval", detail),
            E::NoMachine(_) | E::Gone(_) => Self::not_found("machine-not-found", detail),
            E::NotOpen(NotOpen::NotBlocked { .. }) => conflict("nothing-to-approve", detail),
            E::NotOpen(NotOpen::Before { .. }) => conflict("approved-before", detail),
            E::NotOpen(NotOpen::Late { .. }) => conflict("approval-too-late", detail),
            E::Submitter(_) => conflict("submitter-not-good", detail),
            E::Changed { .. } | E::Digest(_) => conflict("approval-void", detail),
            E::NotWaiting => conflict("nothing-to-approve", detail),
            E::Part => conflict("approval-of-part", detail),
            E::WaitedLong(_) => conflict("approval-too-late", detail),
            E::Again(_) => conflict("approved-before", detail),
            E::OneWith { .. } => Self::new(StatusCode::FORBIDDEN, "own-approval", detail),
            E::Submit(error) => error.into(),
            E::Store(error) => error.into(),
        }
    }
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        let detail = error.to_string();
        match error {
            ChangeError::NoMachine(_) => Self::not_found("machine-not-found", detail),
            ChangeError::NameTaken(_) => {
                Self::new(StatusCode::CONFLICT, "machine-name-taken", detail)
            }
            ChangeError::NotWaiting(_) => {
                Self::new(StatusCode::CONFLICT, "machine-not-waiting", detail)
            }
            ChangeError::Denied(error) => error.into(),
            ChangeError::NotQuarantined(_) => {
                Self::new(StatusCode::CONFLICT, "machine-not-quarantined", detail)
            }
            ChangeError::TooManyTags | ChangeError::Name(_) | ChangeError::Tag(_) => {
                Self::invalid(detail)
            }
            ChangeError::Store(error) => error.into(),
        }
    }
}

impl From<EnrollError> for Refusal {
    fn from(error: EnrollError) -> Self {
        match error {
            EnrollError::Store(error) => error.into(),
            EnrollError::Random(error) => Self::internal("no-randomness", &error),
            EnrollError::Denied(error) => error.into(),
            EnrollError::NoToken(_) => Self::not_found("enroll-token-not-found", error.to_string()),
            error => Self::invalid(error.to_string()),
        }
    }
}

impl From<ChangeOperatorError> for Refusal {
    fn from(error: ChangeOperatorError) -> Self {
        use ChangeOperatorError as E;
        let detail = error.to_string();
        match error {
            E::Name(_) => Self::invalid(detail),
            E::Taken(_) => Self::new(StatusCode::CONFLICT, "operator-name-taken", detail),
            E::NoOperator(_) => Self::not_found("operator-not-found", detail),
            E::Grant(error) => Self::of_grant(&error, detail),
            E::Denied(error) => error.into(),
            E::Store(error) => error.into(),
        }
    }
}

impl From<ChangeRoleError> for Refusal {
    fn from(error: ChangeRoleError) -> Self {
        use ChangeRoleError as E;
        let detail = error.to_string();
        match error {
            E::Invalid(_) => Self::invalid(detail),
            E::Shipped(_) => Self::new(StatusCode::CONFLICT, "role-shipped", detail),
            E::NoRole(_) => Self::not_found("role-not-found", detail),
            E::InUse(_) => Self::new(StatusCode::CONFLICT, "role-in-use", detail),
            E::Denied(error) => error.into(),
            E::Store(error) => error.into(),
        }
    }
}

impl From<CreateTokenError> for Refusal {
    fn from(error: CreateTokenError) -> Self {
        use CreateTokenError as E;
        let detail = error.to_string();
        match error {
            E::Name(_) | E::Outlives(_) | E::Nothing | E::NoTime => Self::invalid(detail),
            E::Taken(_) => Self::new(StatusCode::CONFLICT, "token-name-taken", detail),
            E::TakenByOperator(_) => Self::new(StatusCode::CONFLICT, "operator-name-taken", detail),
            E::NoOperator(_) => Self::not_found("operator-not-found", detail),
            E::Grant(error) => Self::of_grant(&error, detail),
            E::Denied(error) => error.into(),
            E::Random(error) => Self::internal("no-randomness", &error),
            E::Store(error) => error.into(),
        }
    }
}

impl From<TrustError> for Refusal {
    fn from(error: TrustError) -> Self {
        match error {
            TrustError::Key(_) => Self::invalid(error.to_string()),
            TrustError::NotTrusted(_) => Self::not_found("publisher-not-found", error.to_string()),
            TrustError::Store(error) => error.into(),
        }
    }
}

impl From<InstallError> for Refusal {
    fn from(error: InstallError) -> Self {
        let detail = error.to_string();
        match error {
            InstallError::NobodyTrusted => {
                Self::new(StatusCode::CONFLICT, "no-publisher-trusted", detail)
            }
            InstallError::Signature(_) => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "plugin-signature-refused",
                detail,
            ),
            InstallError::Refused(error) => gate_refusal(&error, detail),
            InstallError::OtherStatement { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "plugin-refused", detail)
            }
            InstallError::OtherPublisher { .. }
            | InstallError::Downgrade { .. }
            | InstallError::SameVersion { .. } => {
                Self::new(StatusCode::CONFLICT, "plugin-conflict", detail)
            }
            InstallError::Manifest(_) => Self::internal("internal", &error),
            InstallError::Blob(error) => error.into(),
            InstallError::Store(error) => error.into(),
        }
    }
}

impl From<BindError> for Refusal {
    fn from(error: BindError) -> Self {
        let detail = error.to_string();
        match error {
            // As without the revision that stays, with the word that one does.
            BindError::Stays { error, .. } => Self {
                detail,
                ..Self::from(*error)
            },
            BindError::Weaker { denied, .. } => Self {
                detail,
                ..denied.into()
            },
            BindError::OtherPlugin { .. } | BindError::Several(_) | BindError::Changed(_) => {
                Self::new(StatusCode::CONFLICT, "binding-conflict", detail)
            }
            BindError::Limits(_) => Self::new(StatusCode::BAD_REQUEST, "limits-invalid", detail),
            BindError::NoPlugin(_) => Self::not_found("plugin-not-found", detail),
            BindError::NoBinding(_) => Self::not_found("binding-not-found", detail),
            BindError::Signature(_) => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "plugin-signature-refused",
                detail,
            ),
            BindError::Downgrade { .. } => {
                Self::new(StatusCode::CONFLICT, "plugin-conflict", detail)
            }
            BindError::TooMany | BindError::TooLarge => {
                Self::new(StatusCode::CONFLICT, "too-many-bindings", detail)
            }
            BindError::SettingType(_) | BindError::Settings(_) => {
                Self::new(StatusCode::BAD_REQUEST, "settings-invalid", detail)
            }
            BindError::Refused(error) => gate_refusal(&error, detail),
            BindError::Manifest(_) => Self::internal("internal", &error),
            BindError::Blob(error) => error.into(),
            BindError::Store(error) => error.into(),
        }
    }
}

impl From<ReplayError> for Refusal {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::NoOperation(_) => {
                Self::not_found("operation-not-found", error.to_string())
            }
            ReplayError::Busy(error) => error.into(),
            ReplayError::Runner(_) => Self::internal("gate-runner-failed", &error),
            ReplayError::Store(error) => error.into(),
        }
    }
}

impl From<BacktestError> for Refusal {
    fn from(error: BacktestError) -> Self {
        match error {
            BacktestError::Bind(error) => error.into(),
            BacktestError::Busy(error) => error.into(),
            BacktestError::Runner(_) => Self::internal("gate-runner-failed", &error),
            BacktestError::Store(error) => error.into(),
        }
    }
}

impl From<Busy> for Refusal {
    fn from(error: Busy) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "trial-runs",
            error.to_string(),
        )
    }
}

/// What the gate runner's client says: the plugin's fault, or the host's.
fn gate_refusal(error: &sluice_gate_client::BindError, detail: String) -> Refusal {
    use sluice_gate_client::BindError as E;
    match error {
        E::Refused(_) => Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "plugin-refused", detail),
        E::Settings(_) => Refusal::new(StatusCode::BAD_REQUEST, "settings-invalid", detail),
        E::Limits(_) => Refusal::new(StatusCode::BAD_REQUEST, "limits-invalid", detail),
        E::Call(_) => Refusal::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "plugin-not-configured",
            detail,
        ),
        E::Runner(_) | E::Written(_) | E::Cache(_) => {
            tracing::error!(error = %Causes(error), "the gate runner failed");
            Refusal::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "gate-runner-failed",
                detail,
            )
        }
    }
}

impl From<BlobError> for Refusal {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::TooLarge(_) => Self::too_large(error.to_string()),
            BlobError::Aborted => Self::invalid(error.to_string()),
            error => Self::internal("files-failed", &error),
        }
    }
}
