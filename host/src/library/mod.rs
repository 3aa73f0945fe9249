//! The script library: scripts that are stored under a name, in versions that never change.
//!
//! ```text
//! add      a script, or its next version; the same again is the version that is there
//! choose   what a job runs: a version, with its settings where the job leaves them out
//! archive  nothing is started or added any more; what ran stays
//! redact   the text of a version is erased for good; its digest, its settings and what ran stay
//! ```

mod add;
mod archive;
mod choose;
mod name;
mod redact;
#[cfg(test)]
mod tests;

pub use add::{AddError, Added, add};
pub use archive::{ArchiveError, archive};
pub use choose::{ChooseError, Chosen, Filled, choose, still_runs};
pub use name::{InvalidScriptName, ScriptName, VersionId};
pub use redact::{RedactError, Redaction, redact};
