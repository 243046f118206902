package dev.tfcompress.demo.tensor

/** Types of tensors that the app feeds and reads. */
enum class ElementType(val key: String, val bytes: Int) {
    FLOAT32("float32", 4),
    INT8("int8", 1),
    UINT8("uint8", 1),
    INT16("int16", 2),
    INT32("int32", 4),
    INT64("int64", 8),
    BOOL("bool", 1);

    companion object {
        /** Null for a type that the app does not know. */
        fun of(key: String): ElementType? = entries.find { it.key == key }

        val known: String get() = entries.joinToString { it.key }
    }
}
