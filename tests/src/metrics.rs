//! What a program tells on `/metrics`.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

/// The whole page.
///
/// # Panics
/// Where there is none.
#[must_use]
pub fn page(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    let asked = write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    asked.unwrap_or_else(|error| panic!("{address}: {error}"));
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap_or_else(|error| panic!("{address}: {error}"));
    page
}

/// The value of one series, named with its labels as the page writes it; 0 where it is not there.
///
/// # Panics
/// As [`page`].
#[must_use]
pub fn value(address: &str, series: &str) -> f64 {
    let page = page(address);
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0)
}
