//! What a script is and sees, and what runs beside it.

/// Whether a process has this text in its command line.
pub(crate) fn is_running(mark: &str) -> bool {
    let processes = std::fs::read_dir("/proc").expect("reads /proc").flatten();
    let commands = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    commands.map(|command| String::from_utf8_lossy(&command).replace('\0', " ")).any(|command| command.trim() == mark)
}
