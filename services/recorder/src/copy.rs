//! Rows as `COPY ... (FORMAT BINARY)` reads them: what Postgres takes in at the least cost, because nothing is parsed, planned or put
//! aside on the way to the table.
//!
//! Decimals go in the database's own form with the scale that they have, so `0.00` stays `0.00`; the driver would make it a bare `0`.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgConnection, PgHasArrayType, PgTypeInfo};
use sqlx::{Encode, Postgres, Type};
use uuid::Uuid;

/// What the form begins with: its name, no flags, and a header extension of no length.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Where a row could begin and none does.
const TRAILER: [u8; 2] = (-1i16).to_be_bytes();
/// Length of a value that is NULL.
const NULL: i32 = -1;
/// The database counts time from the year 2000. Microseconds since the epoch.
const YEAR_2000_US: i64 = 946_684_800_000_000;
/// Decimal digits of one digit of a `numeric`, and how many values it has.
const DIGIT: u32 = 4;
const BASE: u128 = 10_000;

/// Rows of one table.
#[derive(Debug)]
pub(crate) struct Rows {
    bytes: Vec<u8>,
    count: u64,
}

impl Rows {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self {
            bytes: HEADER.to_vec(),
            count: 0,
        }
    }

    /// Adds a row: its values in the order of the statement's columns.
    pub(crate) fn add(&mut self, values: &[&dyn Value]) {
        let columns = i16::try_from(values.len()).expect("a table has few columns");
        self.bytes.extend_from_slice(&columns.to_be_bytes());
        for value in values {
            value.put(&mut self.bytes);
        }
        self.count += 1;
    }

    /// Copies them, in the order in which they were added.
    pub(crate) async fn copy(mut self, connection: &mut PgConnection, statement: &str) -> sqlx::Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        self.bytes.extend_from_slice(&TRAILER);
        let mut copy = connection.copy_in_raw(statement).await?;
        copy.send(self.bytes).await?;
        copy.finish().await?;
        Ok(())
    }
}

/// One value of a row: its length and its bytes.
pub(crate) trait Value {
    /// Appends it.
    fn put(&self, to: &mut Vec<u8>);
}

fn put(to: &mut Vec<u8>, bytes: &[u8]) {
    let length = i32::try_from(bytes.len()).expect("a journal row is far shorter");
    to.extend_from_slice(&length.to_be_bytes());
    to.extend_from_slice(bytes);
}

macro_rules! number {
    ($($number:ty),*) => {$(
        impl Value for $number {
            fn put(&self, to: &mut Vec<u8>) {
                put(to, &self.to_be_bytes());
            }
        }
    )*};
}
number!(i16, i32, i64);

impl Value for str {
    fn put(&self, to: &mut Vec<u8>) {
        put(to, self.as_bytes());
    }
}

impl Value for String {
    fn put(&self, to: &mut Vec<u8>) {
        put(to, self.as_bytes());
    }
}

impl Value for [u8] {
    fn put(&self, to: &mut Vec<u8>) {
        put(to, self);
    }
}

impl Value for Vec<u8> {
    fn put(&self, to: &mut Vec<u8>) {
        put(to, self);
    }
}

impl Value for Uuid {
    fn put(&self, to: &mut Vec<u8>) {
        put(to, self.as_bytes());
    }
}

impl Value for DateTime<Utc> {
    fn put(&self, to: &mut Vec<u8>) {
        (self.timestamp_micros() - YEAR_2000_US).put(to);
    }
}

impl Value for Decimal {
    fn put(&self, to: &mut Vec<u8>) {
        let at = to.len();
        to.extend_from_slice(&[0; 4]);
        numeric(*self, to);
        let length = i32::try_from(to.len() - at - 4).expect("a decimal has few digits");
        to[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }
}

impl<T: Value + ?Sized> Value for &T {
    fn put(&self, to: &mut Vec<u8>) {
        (**self).put(to);
    }
}

impl<T: Value> Value for Option<T> {
    fn put(&self, to: &mut Vec<u8>) {
        match self {
            Some(value) => value.put(to),
            None => to.extend_from_slice(&NULL.to_be_bytes()),
        }
    }
}

/// A decimal as an argument of a statement, with its scale.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exact(pub(crate) Decimal);

impl Type<Postgres> for Exact {
    fn type_info() -> PgTypeInfo {
        <Decimal as Type<Postgres>>::type_info()
    }
}

impl PgHasArrayType for Exact {
    fn array_type_info() -> PgTypeInfo {
        <Decimal as PgHasArrayType>::array_type_info()
    }
}

impl Encode<'_, Postgres> for Exact {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        numeric(self.0, buffer);
        Ok(IsNull::No)
    }
}

/// Appends a `numeric`: how many digits to the base 10,000, the weight of the first, sign, scale, the digits.
fn numeric(decimal: Decimal, to: &mut Vec<u8>) {
    let scale = decimal.scale();
    // The point stands between two digits of that base, so the last one may want zeros behind it.
    let mut rest = decimal.mantissa().unsigned_abs() * 10u128.pow((DIGIT - scale % DIGIT) % DIGIT);
    let behind = i16::try_from(scale.div_ceil(DIGIT)).expect("a scale is at most 28");
    let mut digits = [0u16; 10];
    let mut count = 0;
    while rest > 0 {
        let digit;
        (rest, digit) = match u64::try_from(rest) {
            // Half of what a decimal may hold, and nearly all that it does: several times as quick.
            Ok(short) => (u128::from(short / BASE as u64), short % BASE as u64),
            Err(_) => (rest / BASE, (rest % BASE) as u64),
        };
        digits[count] = digit as u16;
        count += 1;
    }
    let digits = &digits[..count];
    let zeros = digits.iter().take_while(|digit| **digit == 0).count();
    let told = i16::try_from(count - zeros).expect("ten at most");
    let weight = if count == 0 {
        0
    } else {
        i16::try_from(count).expect("ten at most") - behind - 1
    };
    let sign: u16 = if decimal.is_sign_negative() && told > 0 {
        0x4000
    } else {
        0
    };
    to.extend_from_slice(&told.to_be_bytes());
    to.extend_from_slice(&weight.to_be_bytes());
    to.extend_from_slice(&sign.to_be_bytes());
    to.extend_from_slice(&(scale as u16).to_be_bytes());
    for digit in digits[zeros..].iter().rev() {
        to.extend_from_slice(&digit.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use testkit::PrivatePostgres;

    use super::*;

    /// Numbers at every edge of the form: each length, each scale, both signs, zeros before, behind and between.
    fn decimals() -> Vec<Decimal> {
        let mut texts: Vec<String> = [
            "0",
            "0.0",
            "0.00",
            "0.0000000000000000000000000000",
            "1",
            "-1",
            "9999",
            "10000",
            "10001",
            "100000000",
            "0.1",
            "0.0001",
            "0.00001",
            "0.00010000",
            "12345.6789",
            "-12345.67890",
            "20000.0002",
            "1.0000000000000000000000000001",
            "79228162514264337593543950335",
            "-7.9228162514264337593543950335",
            "18446744073709551615",
            "18446744073709551616",
        ]
        .map(str::to_owned)
        .to_vec();
        for scale in 0..=28u32 {
            for mantissa in [
                1i128,
                -7,
                1_0000,
                9_9999_9999,
                1_0000_0000_0000_0001,
                i128::from(u64::MAX) + 3,
            ] {
                texts.push(Decimal::from_i128_with_scale(mantissa, scale).to_string());
            }
        }
        texts
            .iter()
            .map(|text| Decimal::from_str_exact(text).unwrap())
            .collect()
    }

    #[tokio::test]
    async fn a_decimal_arrives_with_its_value_and_its_scale() {
        let postgres = PrivatePostgres::start().await;
        let pool = postgres.pool();
        let mut connection = pool.acquire().await.unwrap();
        let decimals = decimals();
        let told: Vec<String> = decimals.iter().map(Decimal::to_string).collect();

        let sql = "SELECT it::text FROM unnest($1::numeric[]) WITH ORDINALITY AS given (it, n) ORDER BY n";
        let exact: Vec<Exact> = decimals.iter().copied().map(Exact).collect();
        let back: Vec<String> = sqlx::query_scalar(sql)
            .bind(exact)
            .fetch_all(&mut *connection)
            .await
            .unwrap();
        assert_eq!(back, told);

        sqlx::query("CREATE TEMP TABLE kept (n integer, it numeric)")
            .execute(&mut *connection)
            .await
            .unwrap();
        let mut rows = Rows::new();
        for (n, decimal) in (0i32..).zip(&decimals) {
            rows.add(&[&n, decimal]);
        }
        rows.copy(&mut connection, "COPY kept (n, it) FROM STDIN (FORMAT BINARY)")
            .await
            .unwrap();
        let sql = "SELECT it::text FROM kept ORDER BY n";
        let back: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut *connection).await.unwrap();
        assert_eq!(back, told);
        // As the database would have written it itself: equal bytes group and compare as one.
        let sql = "SELECT count(*) FROM kept WHERE numeric_send(it) <> numeric_send(it::text::numeric)";
        let differ: i64 = sqlx::query_scalar(sql).fetch_one(&mut *connection).await.unwrap();
        assert_eq!(differ, 0);
    }

    #[tokio::test]
    async fn every_kind_of_value_arrives() {
        let postgres = PrivatePostgres::start().await;
        let pool = postgres.pool();
        let mut connection = pool.acquire().await.unwrap();
        let table = "CREATE TEMP TABLE kept (a smallint, b integer, c bigint, d text, e bytea, f uuid, g timestamptz, h text, i text)";
        sqlx::query(table).execute(&mut *connection).await.unwrap();
        let at = DateTime::from_timestamp_micros(1_700_000_000_000_001).unwrap();
        let early = DateTime::from_timestamp_micros(1).unwrap();
        let mut rows = Rows::new();
        for at in [at, early] {
            rows.add(&[
                &-1i16,
                &2i32,
                &i64::MIN,
                &"čeština",
                &vec![0u8, 255],
                &Uuid::from_u128(7),
                &at,
                &None::<String>,
                &Some(""),
            ]);
        }
        rows.copy(&mut connection, "COPY kept FROM STDIN (FORMAT BINARY)")
            .await
            .unwrap();
        let sql = "SELECT (a, b, c, d, e, f, (extract(epoch FROM g) * 1000000)::bigint, h IS NULL, i = '')::text FROM kept ORDER BY g DESC";
        let back: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut *connection).await.unwrap();
        let expected = |at_us: i64| {
            format!(r#"(-1,2,-9223372036854775808,čeština,"\\x00ff",00000000-0000-0000-0000-000000000007,{at_us},t,t)"#)
        };
        assert_eq!(back, [expected(1_700_000_000_000_001), expected(1)]);
    }
}
