package dev.tfcompress.demo.json

/** A text that is not JSON; [message] says where. */
class JsonException(message: String) : IllegalArgumentException(message)

/**
 * JSON as plain values: Map, List, String, Double, Long, Boolean and null.
 *
 * A reader of its own, so that the same code runs on a phone and in tests on the JVM, and refuses what is not JSON.
 */
object Json {
    fun parse(text: String): Any? = Reader(text).whole()

    /** Numbers that JSON does not know (infinite, not a number) become null. */
    fun write(value: Any?, indent: Int = 0): String = StringBuilder().also { put(it, value, indent, 0) }.toString()

    private fun put(out: StringBuilder, value: Any?, indent: Int, depth: Int) {
        when (value) {
            null -> out.append("null")
            is String -> quote(out, value)
            is Boolean -> out.append(value)
            is Float, is Double -> (value as Number).toDouble().let { out.append(if (it.isFinite()) value else "null") }
            is Number -> out.append(value)
            is Map<*, *> -> list(out, '{', '}', value.entries, indent, depth) { (key, one) ->
                quote(out, key.toString())
                out.append(if (indent > 0) ": " else ":")
                put(out, one, indent, depth + 1)
            }
            is Iterable<*> -> list(out, '[', ']', value.toList(), indent, depth) { put(out, it, indent, depth + 1) }
            else -> throw IllegalArgumentException("JSON has no ${value.javaClass.name}")
        }
    }

    private fun <T> list(
        out: StringBuilder, open: Char, close: Char, items: Collection<T>, indent: Int, depth: Int, each: (T) -> Unit,
    ) {
        out.append(open)
        items.forEachIndexed { number, item ->
            if (number > 0) out.append(',')
            if (indent > 0) out.append('\n').append(" ".repeat(indent * (depth + 1)))
            each(item)
        }
        if (indent > 0 && items.isNotEmpty()) out.append('\n').append(" ".repeat(indent * depth))
        out.append(close)
    }

    private fun quote(out: StringBuilder, text: String) {
        out.append('"')
        for (letter in text) {
            when {
                letter == '"' || letter == '\\' -> out.append('\\').append(letter)
                letter == '\n' -> out.append("\\n")
                letter < ' ' -> out.append("\\u%04x".format(letter.code))
                else -> out.append(letter)
            }
        }
        out.append('"')
    }
}

private const val DEEPEST = 100

private class Reader(private val text: String) {
    private var at = 0
    private var depth = 0

    fun whole(): Any? {
        val found = value()
        space()
        if (at < text.length) fail("the text goes on")
        return found
    }

    private fun value(): Any? {
        space()
        if (++depth > DEEPEST) fail("nested too deep")
        val found = when (val letter = peek()) {
            '{' -> members()
            '[' -> items()
            '"' -> string()
            't' -> word("true", true)
            'f' -> word("false", false)
            'n' -> word("null", null)
            else -> if (letter == '-' || letter in '0'..'9') number() else fail("unexpected '$letter'")
        }
        depth--
        return found
    }

    private fun members(): Map<String, Any?> {
        val found = LinkedHashMap<String, Any?>()
        each('}') {
            space()
            val key = string()
            space()
            expect(':')
            if (found.containsKey(key)) fail("\"$key\" comes twice")
            found[key] = value()
        }
        return found
    }

    private fun items(): List<Any?> = ArrayList<Any?>().also { found -> each(']') { found += value() } }

    private fun each(close: Char, one: () -> Unit) {
        at++
        space()
        if (peek() == close) {
            at++
            return
        }
        while (true) {
            one()
            space()
            if (peek() == ',') {
                at++
                continue
            }
            return expect(close)
        }
    }

    private fun string(): String {
        expect('"')
        val found = StringBuilder()
        while (true) {
            val letter = peek()
            at++
            when {
                letter == '"' -> return found.toString()
                letter < ' ' -> fail("a control character in a text")
                letter == '\\' -> found.append(escaped())
                else -> found.append(letter)
            }
        }
    }

    private fun escaped(): Char {
        val letter = peek()
        at++
        return when (letter) {
            '"', '\\', '/' -> letter
            'b' -> '\b'
            'f' -> '\u000c'
            'n' -> '\n'
            'r' -> '\r'
            't' -> '\t'
            'u' -> {
                val code = text.substring(at, minOf(at + 4, text.length))
                at += 4
                if (code.length < 4 || code.any { it.digitToIntOrNull(16) == null }) fail("a broken \\u") else code.toInt(16).toChar()
            }
            else -> fail("an unknown escape")
        }
    }

    private fun number(): Number {
        val from = at
        while (at < text.length && (text[at] in '0'..'9' || text[at] in "+-.eE")) at++
        val digits = text.substring(from, at)
        if (!NUMBER.matches(digits)) fail("\"$digits\" is no number")
        return digits.toLongOrNull() ?: digits.toDouble().also { if (!it.isFinite()) fail("\"$digits\" is too large") }
    }

    private fun <T> word(word: String, found: T): T {
        if (!text.startsWith(word, at)) fail("an unknown word")
        at += word.length
        return found
    }

    private fun space() {
        while (at < text.length && text[at] in " \t\r\n") at++
    }

    private fun peek(): Char = if (at < text.length) text[at] else fail("the text ends too soon")

    private fun expect(letter: Char) {
        if (peek() != letter) fail("'$letter' is missing")
        at++
    }

    private fun fail(reason: String): Nothing = throw JsonException("not JSON at letter $at: $reason")

    private companion object {
        val NUMBER = Regex("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")
    }
}
