//! Ending a process at a call of the system that it makes, by strace(1).

/// The call in which a process ends: nothing of it happens, nor of what would come after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastCall {
    /// Its name. On a machine that has no such call nothing ends.
    pub name: &'static str,
    /// Which of those that one thread makes, counted from 1. The first thread that gets there ends its process; processes that
    /// it starts are watched too, and each counts its own.
    pub number: u32,
}

impl LastCall {
    /// Commands of a shell that start `"$0" "$@"` so. The process that is started becomes the program. (With
    /// `--seccomp-bpf` strace 6.1 counts no further than to the first call.)
    pub(crate) fn commands(self) -> String {
        let Self { name, number } = self;
        format!(
            "exec /usr/bin/strace -f -D -qq -o /dev/null -e 'trace=?{name}' -e 'inject=?{name}:signal=KILL:when={number}' \"$0\" \"$@\""
        )
    }
}
