//! The `record!` macro.

/// Declares a record type: its schema and a struct with one field per schema field.
///
/// ```
/// use std::time::Duration;
/// use stormlog::record::{DurationMs, ShortText, Symbol, Text};
///
/// stormlog::record! {
///     /// A container was created, or not.
///     pub struct Started in "provisioning" keep Sampled key container_id {
///         /// What was done.
///         operation: Symbol,
///         /// 64 hexadecimal digits.
///         container_id: Option<ShortText<64>>,
///         /// Time it took.
///         duration_ms: Option<DurationMs<2>>,
///         /// Whether it worked.
///         success: bool,
///         /// Why not.
///         error: Option<Text>,
///     }
/// }
///
/// let record = Started {
///     operation: stormlog::symbol!("start_container_success"),
///     container_id: Some("4f6c0a"),
///     duration_ms: Some(Duration::from_millis(264)),
///     success: true,
///     ..Default::default()
/// };
/// assert_eq!(record.container_id, Some("4f6c0a"));
/// ```
///
/// The category is a text literal `[a-z0-9_]{1,64}`; `keep` is `Sampled` or `Always`; `key` (may
/// be left out) names the text field that ties the records of one operation together. Field types
/// are in [`record`](mod@crate::record). Field names are the names in the JSON line, in this order.
/// The layout is checked at compile time; the fixed part is a packed `bytemuck::Pod` struct.
///
/// The first [`DurationMs`](crate::record::DurationMs) field of a type, if it has one, is counted
/// in the duration aggregates of the session, under the operation that the first
/// [`Symbol`](crate::record::Symbol) field names: see
/// [`Session::durations`](crate::Session::durations).
#[macro_export]
macro_rules! record {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident in $category:literal keep $keep:ident $(key $key:ident)? {
            $( $(#[$field_meta:meta])* $field:ident : $type:ty ),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default)]
        $vis struct $name<'a> {
            $( $(#[$field_meta])* pub $field: <$type as $crate::record::Field>::Arg<'a>, )*
        }

        const _: () = {
            use $crate::bytemuck as __stormlog_bytemuck;
            use $crate::record::Field as __StormlogField;

            /// The fixed part: one slot per field, without padding.
            #[repr(C, packed)]
            #[derive(
                Clone,
                Copy,
                __stormlog_bytemuck::Pod,
                __stormlog_bytemuck::Zeroable,
            )]
            #[bytemuck(crate = "__stormlog_bytemuck")]
            pub struct __StormlogFixed {
                $( $field: <$type as __StormlogField>::Slot, )*
            }

            static FIELDS: &[$crate::record::FieldDef] = &[
                $( $crate::record::FieldDef {
                    name: $crate::record::field_name(stringify!($field)),
                    field_type: <$type as __StormlogField>::TYPE,
                    offset: ::core::mem::offset_of!(__StormlogFixed, $field) as u16,
                }, )*
            ];

            static SCHEMA: $crate::record::SchemaDef = $crate::record::SchemaDef::new(
                stringify!($name),
                $category,
                $crate::record::KeepClass::$keep,
                FIELDS,
                ::core::mem::size_of::<__StormlogFixed>(),
                $crate::record!(@key FIELDS $($key)?),
            );

            impl $crate::record::Declared for $name<'_> {
                #[inline(always)]
                fn declared() -> &'static $crate::record::SchemaDef {
                    &SCHEMA
                }
            }

            impl $crate::record::Record for $name<'_> {
                type Fixed = __StormlogFixed;
                const KEYED: bool = $crate::record!(@keyed $($key)?);
                const OBSERVED: bool =
                    false $( || <$type as __StormlogField>::TYPE.kind.is_duration() )*;

                #[inline(always)]
                fn schema(&self) -> &'static $crate::record::SchemaDef {
                    &SCHEMA
                }

                #[inline(always)]
                fn keep(&self) -> $crate::record::KeepClass {
                    $crate::record::KeepClass::$keep
                }

                #[inline(always)]
                #[allow(unused_variables)]
                fn fixed(&self, cap: usize) -> __StormlogFixed {
                    __StormlogFixed { $( $field: <$type as __StormlogField>::slot(self.$field, cap), )* }
                }

                #[inline(always)]
                #[allow(unused_variables)]
                fn variable_bytes(&self, cap: usize) -> usize {
                    0 $( + <$type as __StormlogField>::variable(self.$field, cap).len() )*
                }

                #[inline(always)]
                #[allow(unused_variables)]
                fn write_variable(&self, cap: usize, out: &mut impl $crate::record::Sink) {
                    $( out.put(<$type as __StormlogField>::variable(self.$field, cap)); )*
                }

                #[inline(always)]
                #[allow(unused_variables)]
                fn is_cut(&self, cap: usize) -> bool {
                    false $( || <$type as __StormlogField>::is_cut(self.$field, cap) )*
                }

                #[inline(always)]
                #[allow(unused_variables, unused_mut)]
                fn all_symbols(&self, mut check: impl FnMut($crate::record::Symbol) -> bool) -> bool {
                    true $( && <$type as __StormlogField>::symbol(self.$field).is_none_or(&mut check) )*
                }

                fn without_symbols(&self) -> ::core::option::Option<Self> {
                    ::core::option::Option::Some(Self {
                        $( $field: <$type as __StormlogField>::without_symbol(self.$field), )*
                    })
                }

                #[inline(always)]
                fn key_bytes(&self) -> &[u8] {
                    $crate::record!(@key_bytes self $($key)?)
                }

                #[inline(always)]
                #[allow(unused_assignments)]
                fn observed(&self) -> ::core::option::Option<$crate::record::Observed> {
                    if !Self::OBSERVED {
                        return ::core::option::Option::None;
                    }
                    // The first of each; all of this is decided at compile time.
                    let (mut ns, mut operation) = (u64::MAX, 0);
                    let (mut timed, mut named) = (false, false);
                    $(
                        let kind = <$type as __StormlogField>::TYPE.kind;
                        if kind.is_duration() && !timed {
                            timed = true;
                            ns = <$type as __StormlogField>::duration_ns(self.$field);
                        }
                        if kind.is_symbol() && !named {
                            named = true;
                            operation = <$type as __StormlogField>::operation(self.$field);
                        }
                    )*
                    (ns != u64::MAX).then_some($crate::record::Observed { operation, ns })
                }

                #[allow(unused_variables)]
                fn visit<'s>(&'s self, visit: &mut dyn FnMut($crate::record::Extra<'s>)) {
                    $( visit($crate::record::Extra::new(
                        $crate::record::field_name(stringify!($field)),
                        <$type as __StormlogField>::value(self.$field),
                    )); )*
                }
            }
        };
    };
    (@key $fields:ident) => { ::core::option::Option::None };
    (@key $fields:ident $key:ident) => {
        ::core::option::Option::Some($crate::record::field_index($fields, stringify!($key)))
    };
    (@keyed) => { false };
    (@keyed $key:ident) => { true };
    (@key_bytes $self:ident) => { &[] };
    (@key_bytes $self:ident $key:ident) => {
        $crate::record::KeyText::key_text(&$self.$key)
    };
}
