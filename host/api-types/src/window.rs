//! `/v1/windows`: times in which operations may start, and outside of which they are held.

use serde::{Deserialize, Serialize};
use sluice_protocol::units::Span;

use crate::job::Tag;

/// `POST /v1/windows`. Without `tags` and `all` it is there for jobs that ask for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddWindow {
    /// The tenant's name; the operator's own where absent.
    #[serde(default)]
    pub tenant: Option<String>,
    /// What it is called; unique in its tenant until it is removed.
    pub name: String,
    /// When it opens: a cron expression of five fields.
    #[schema(example = "0 2 * * 0")]
    pub cron: String,
    /// It closes when the clocks of the zone show so much more: whole minutes, at most 7 days, and no more than lies between
    /// two openings.
    #[schema(value_type = String, example = "3h")]
    pub lasts: Span,
    /// The time zone whose clocks are meant; UTC where absent.
    #[serde(default)]
    #[schema(example = "Europe/Berlin")]
    pub zone: Option<String>,
    /// Nothing starts outside of it on machines that have all of these.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// Nothing starts outside of it on any machine of the tenant.
    #[serde(default)]
    pub all: bool,
}

/// A window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Window {
    /// Its name.
    pub name: String,
    /// The tenant's name.
    pub tenant: String,
    /// When it opens: a cron expression.
    pub cron: String,
    /// How much later, on the clocks of its zone, it closes.
    #[schema(value_type = String)]
    pub lasts: Span,
    /// The name of the time zone.
    pub zone: String,
    /// Nothing starts outside of it on machines that have all of these; none where it is about all machines, or there to be
    /// asked for.
    pub tags: Vec<Tag>,
    /// Whether nothing starts outside of it on any machine of the tenant.
    pub all: bool,
    /// How many machines it is about now, whether a job asks for it or not.
    pub machines: u64,
    /// Whether it is open now.
    pub open: bool,
    /// The next three openings; the first is that of now where it is open.
    pub next: Vec<Opening>,
    /// RFC 3339.
    pub created_at: String,
    /// Who added it.
    pub created_by: String,
}

/// A time in which a window is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Opening {
    /// RFC 3339; now where it is open.
    pub opens_at: String,
    /// RFC 3339: the first moment in which it is closed.
    pub closes_at: String,
    /// When it opens, as the clocks of its zone show it (RFC 9557).
    #[schema(example = "2026-11-29T02:00:00+01:00[Europe/Berlin]")]
    pub local: String,
    /// When it closes, as the clocks of its zone show it.
    #[schema(example = "2026-11-29T05:00:00+01:00[Europe/Berlin]")]
    pub local_until: String,
}
