//! The variables a script sees. Nothing of the agent's own environment but its locale.

use sluice_shim::spec::Variable;

use crate::exec::users::RunAs;

/// The path every script starts with.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin";

/// `LANG`, `LC_ALL` and `LC_CTYPE` of the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Locale(Vec<Variable>);

/// What tells a script where it runs and for whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The tenant's name.
    pub tenant: String,
    /// The machine's id.
    pub machine_id: String,
    /// The machine's name.
    pub machine_name: String,
    /// The machine's tags.
    pub machine_tags: Vec<String>,
    /// The host's address.
    pub url: String,
    /// The job.
    pub job_id: String,
    /// The operation.
    pub operation_id: String,
    /// Who asked for it.
    pub operator: String,
    /// When, in RFC 3339.
    pub submitted_at: String,
}

/// Which names a script gets its identity by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// `SLUICE_*`.
    Sluice,
    /// `SLUICE_*` and `LANDSCAPE_*` (`--compat landscape`).
    SluiceAndLandscape,
}

impl Names {
    /// Whether a script learns something of its identity by this name, whatever the job says.
    #[must_use]
    pub fn are_identity(self, name: &str) -> bool {
        let all = Identity::default().variables(self);
        all.iter().any(|variable| variable.name == name)
    }
}

impl Locale {
    /// The agent's.
    #[must_use]
    pub fn of_this_process() -> Self {
        let known = ["LANG", "LC_ALL", "LC_CTYPE"];
        Self(
            known
                .into_iter()
                .filter_map(|name| Some(variable(name, std::env::var(name).ok()?)))
                .collect(),
        )
    }
}

/// The whole environment: the base, then the job's variables (which may override it), then the identity (which they may
/// not). The shim adds what it alone knows: `USER` and `LOGNAME` of an ephemeral user, where the job did not set them,
/// and the paths of attachments and secrets.
#[must_use]
pub fn compose(
    user: &RunAs,
    locale: &Locale,
    job: &[Variable],
    identity: &Identity,
    names: Names,
) -> Vec<Variable> {
    let mut all = vec![variable("PATH", PATH)];
    match user {
        RunAs::Ephemeral => all.extend([variable("HOME", "/"), variable("SHELL", "/bin/sh")]),
        RunAs::Named(user) => all.extend([
            variable("USER", &user.name),
            variable("LOGNAME", &user.name),
            variable("HOME", user.home.to_string_lossy()),
            variable("SHELL", user.shell.to_string_lossy()),
        ]),
    }
    all.extend(locale.0.iter().cloned());
    for one in job.iter().cloned().chain(identity.variables(names)) {
        match all.iter_mut().find(|there| there.name == one.name) {
            Some(there) => there.value = one.value,
            None => all.push(one),
        }
    }
    all
}

/// The names by which a script finds its attachments.
#[must_use]
pub fn attachment_names(names: Names) -> Vec<String> {
    let all: &[&str] = match names {
        Names::Sluice => &["SLUICE_ATTACHMENTS"],
        Names::SluiceAndLandscape => &["SLUICE_ATTACHMENTS", "LANDSCAPE_ATTACHMENTS"],
    };
    all.iter().map(ToString::to_string).collect()
}

impl Identity {
    fn variables(&self, names: Names) -> Vec<Variable> {
        let tags = self.machine_tags.join(",");
        let mut all = vec![
            variable("SLUICE_TENANT", &self.tenant),
            variable("SLUICE_MACHINE_ID", &self.machine_id),
            variable("SLUICE_MACHINE_NAME", &self.machine_name),
            variable("SLUICE_MACHINE_TAGS", &tags),
            variable("SLUICE_URL", &self.url),
            variable("SLUICE_JOB_ID", &self.job_id),
            variable("SLUICE_OPERATION_ID", &self.operation_id),
            variable("SLUICE_OPERATOR", &self.operator),
            variable("SLUICE_SUBMITTED_AT", &self.submitted_at),
        ];
        if names == Names::SluiceAndLandscape {
            all.extend([
                variable("LANDSCAPE_ACCOUNT", &self.tenant),
                variable("LANDSCAPE_COMPUTER_ID", &self.machine_id),
                variable("LANDSCAPE_COMPUTER_TAGS", &tags),
                variable("LANDSCAPE_URL", &self.url),
                variable("LANDSCAPE_ACTIVITY_ID", &self.operation_id),
                variable("LANDSCAPE_ACTIVITY_CREATOR_ID", &self.operator),
                variable("LANDSCAPE_ACTIVITY_CREATION_TIME", &self.submitted_at),
            ]);
        }
        all
    }
}

fn variable(name: &str, value: impl AsRef<str>) -> Variable {
    Variable {
        name: name.to_owned(),
        value: value.as_ref().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::exec::users::NamedUser;

    fn identity() -> Identity {
        Identity {
            tenant: "default".into(),
            machine_id: "m-1".into(),
            machine_name: "web1".into(),
            machine_tags: vec!["env=prod".into(), "web".into()],
            url: "https://host".into(),
            job_id: "j-1".into(),
            operation_id: "o-1".into(),
            operator: "ann".into(),
            submitted_at: "2026-11-21T00:00:00Z".into(),
        }
    }

    fn ann() -> RunAs {
        RunAs::Named(NamedUser {
            name: "ann".into(),
            uid: 1,
            gid: 1,
            groups: vec![],
            home: "/home/ann".into(),
            shell: "/bin/bash".into(),
        })
    }

    fn value<'a>(all: &'a [Variable], name: &str) -> Option<&'a str> {
        let mut found = all.iter().filter(|v| v.name == name);
        let first = found.next();
        assert!(found.next().is_none(), "{name} is there twice");
        first.map(|v| v.value.as_str())
    }

    #[test]
    fn a_job_overrides_the_base_and_not_the_identity() {
        let job = [
            variable("PATH", "/opt/bin"),
            variable("HOME", "/x"),
            variable("SLUICE_TENANT", "other"),
            variable("SLUICE_PARAM_A", "1"),
        ];
        let all = compose(&ann(), &Locale::default(), &job, &identity(), Names::Sluice);
        assert_eq!(value(&all, "PATH"), Some("/opt/bin"));
        assert_eq!(value(&all, "HOME"), Some("/x"));
        assert_eq!(value(&all, "USER"), Some("ann"));
        assert_eq!(value(&all, "SHELL"), Some("/bin/bash"));
        assert_eq!(value(&all, "SLUICE_TENANT"), Some("default"));
        assert_eq!(value(&all, "SLUICE_PARAM_A"), Some("1"));
        assert_eq!(value(&all, "SLUICE_MACHINE_TAGS"), Some("env=prod,web"));
        assert_eq!(value(&all, "LANDSCAPE_ACCOUNT"), None);
    }

    #[test]
    fn an_ephemeral_user_has_the_root_as_home_and_gets_its_name_from_the_shim() {
        let all = compose(
            &RunAs::Ephemeral,
            &Locale(vec![variable("LANG", "C.UTF-8")]),
            &[],
            &identity(),
            Names::SluiceAndLandscape,
        );
        assert_eq!(value(&all, "HOME"), Some("/"));
        assert_eq!(value(&all, "SHELL"), Some("/bin/sh"));
        assert_eq!(value(&all, "USER"), None);
        assert_eq!(value(&all, "LANG"), Some("C.UTF-8"));
        assert_eq!(value(&all, "PATH"), Some(PATH));
        assert_eq!(value(&all, "LANDSCAPE_ACTIVITY_ID"), Some("o-1"));
    }
}
