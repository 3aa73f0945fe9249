//! Writes the component of a guest into a file, to look at it with other tools: `component honest guest.wasm`.

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(name), Some(file)) = (arguments.next(), arguments.next()) else {
        return Err(std::io::Error::other("which guest, and into which file?"));
    };
    std::fs::write(file, sluice_guests::Guest::named(&name).build())
}
