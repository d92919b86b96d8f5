// SPDX-License-Identifier: BSD-2-Clause
// std::net alone, a thread for each connection. It knows nothing of gapless.
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

fn serve(mut client: TcpStream, version: &str) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    client.set_nodelay(true)?;
    loop {
        let got = client.read(&mut piece)?;
        if got == 0 {
            return Ok(());
        }
        request.extend_from_slice(&piece[..got]);
        let text = String::from_utf8_lossy(&request).to_lowercase();
        if !text.contains("\r\n\r\n") {
            continue;
        }
        let last = text.contains("\r\nconnection: close\r\n");
        let close = if last { "Connection: close\r\n" } else { "" };
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{}\r\n{}\n", version.len() + 1, close, version);
        client.write_all(answer.as_bytes())?;
        if last {
            return Ok(());
        }
        request.clear();
    }
}

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).expect("an address");
    let version = std::env::var("GAPLESS_GENERATION").unwrap_or_default();
    for client in TcpListener::bind(address)?.incoming() {
        let version = version.clone();
        let client = client?;
        std::thread::spawn(move || serve(client, &version));
    }
    Ok(())
}
