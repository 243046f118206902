package dev.tfcompress.demo.json

/** An object of a JSON file whose values are read with their types checked; [path] is how messages call it. */
class Fields(value: Any?, private val path: String) {
    private val values = value as? Map<*, *> ?: throw JsonException("$path must be an object")

    fun text(key: String): String = of(key, "a text")

    fun truth(key: String): Boolean = of(key, "true or false")

    fun whole(key: String): Int = inside(of<Long>(key, "a whole number"), "$path.$key")

    fun wholeOrNull(key: String): Int? = if (values[key] == null) null else whole(key)

    fun numberOrNull(key: String): Double? = if (values[key] == null) null else of<Number>(key, "a number").toDouble()

    fun texts(key: String): List<String> = each(key) { it as? String }

    fun sizes(key: String): List<Int> = each(key) { (it as? Long)?.let { size -> inside(size, "$path.$key") } }

    fun numbers(key: String): List<Double> = each(key) { (it as? Number)?.toDouble() }

    fun objects(key: String): List<Fields> = of<List<*>>(key, "a list").mapIndexed { i, one -> Fields(one, "$path.$key[$i]") }

    private inline fun <reified T> of(key: String, kind: String): T {
        if (key !in values) throw JsonException("$path.$key is missing")
        return values[key] as? T ?: throw JsonException("$path.$key must be $kind")
    }

    private fun <T : Any> each(key: String, one: (Any?) -> T?): List<T> = of<List<*>>(key, "a list").mapIndexed { i, value ->
        one(value) ?: throw JsonException("$path.$key[$i] is of the wrong kind")
    }

    private fun inside(value: Long, where: String): Int =
        if (value in Int.MIN_VALUE..Int.MAX_VALUE) value.toInt() else throw JsonException("$where is too large")
}
