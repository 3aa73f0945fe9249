pub(crate) fn run(_stay: bool) -> anyhow::Result<()> { anyhow::bail!("being written") }
