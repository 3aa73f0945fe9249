//! Prints the `[[rules]]` of `plugin.toml`, made from the rules.

fn main() {
    print!("{}", sluice_plugin_scanner::manifest_table());
}
