//! The roles that every host has. They cannot be changed: a tenant that wants another makes one of its own.

use std::sync::{Arc, LazyLock};

use super::Role;

/// Their names and texts, the widest first.
pub const SHIPPED: &[(&str, &str)] = &[
    ("owner", include_str!("roles/owner.cedar")),
    ("administrator", include_str!("roles/administrator.cedar")),
    ("operator", include_str!("roles/operator.cedar")),
    ("helpdesk", include_str!("roles/helpdesk.cedar")),
    ("scheduler", include_str!("roles/scheduler.cedar")),
    ("approver", include_str!("roles/approver.cedar")),
    ("gate-author", include_str!("roles/gate-author.cedar")),
    ("auditor", include_str!("roles/auditor.cedar")),
    ("viewer", include_str!("roles/viewer.cedar")),
];

/// What the first operator of a host has.
pub const OWNER: &str = "owner";

static READ: LazyLock<Vec<Arc<Role>>> = LazyLock::new(|| {
    let read = |(name, text): &(&str, &str)| {
        let name = name.parse().expect("a name; a test reads it");
        Arc::new(Role::read(name, text).expect("holds to the schema; a test reads it"))
    };
    SHIPPED.iter().map(read).collect()
});

/// The shipped role of this name.
#[must_use]
pub fn shipped(name: &str) -> Option<Arc<Role>> {
    let role = READ.iter().find(|role| role.name().as_str() == name)?;
    Some(Arc::clone(role))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::{Permission, Permissions};

    #[test]
    fn every_shipped_role_holds_to_the_schema_and_its_first_line_says_what_it_is_for() {
        for (name, text) in SHIPPED {
            let role = shipped(name).expect("is read");
            assert_ne!(role.gives(), Permissions::default(), "{name}");
            assert_eq!(role.forbids(), Permissions::default(), "{name}");
            assert!(text.starts_with("// "), "{name}");
        }
        assert!(shipped("nobody").is_none());
    }

    #[test]
    fn an_owner_may_do_everything_and_a_viewer_changes_nothing() {
        assert_eq!(
            shipped("owner").expect("is there").gives_always(),
            Permissions::ALL
        );
        let looks = |permission: Permission| permission.as_str().starts_with("Read");
        for name in ["viewer", "auditor"] {
            let gives = shipped(name).expect("is there").gives();
            assert!(gives.iter().all(looks), "{name}");
        }
    }
}
