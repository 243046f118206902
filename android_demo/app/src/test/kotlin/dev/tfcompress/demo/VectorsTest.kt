package dev.tfcompress.demo

import dev.tfcompress.demo.json.Json
import dev.tfcompress.demo.measure.Comparison
import dev.tfcompress.demo.measure.Statistics
import dev.tfcompress.demo.tensor.Answers
import dev.tfcompress.demo.tensor.ElementType
import dev.tfcompress.demo.tensor.Grid
import dev.tfcompress.demo.tensor.Picture
import dev.tfcompress.demo.tensor.Pictures
import dev.tfcompress.demo.tensor.TensorInfo
import dev.tfcompress.demo.tensor.Values
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Test
import java.nio.ByteBuffer

/** The same numbers as Python's: vectors.json is written by tests/android_demo/vectors.py. */
class VectorsTest {
    private val all = Json.parse(Given.text("vectors.json")) as Map<*, *>

    private fun rows(name: String) = (all[name] as List<*>).map { it as Map<*, *> }

    private fun numbers(value: Any?) = (value as List<*>).map { (it as Number).toDouble() }.toDoubleArray()

    private fun number(value: Any?) = (value as Number).toDouble()

    @Test
    fun `photos become inputs as in TensorFlow`() {
        for (row in rows("pictures")) {
            val pixels = numbers(row["pixels"]).map { it.toInt() }.toIntArray()
            val picture = Picture(number(row["width"]).toInt(), number(row["height"]).toInt(), pixels)
            val (height, width, channels) = numbers(row["to"]).map { it.toInt() }
            val got = Pictures.input(picture, height, width, channels, numbers(row["mean"]).toList(), numbers(row["std"]).toList())
            assertArrayEquals(numbers(row["values"]), got.map { it.toDouble() }.toDoubleArray(), 1e-4)
        }
    }

    @Test
    fun `an input is shown as the picture that it was`() {
        val pixels = IntArray(12) { (0xFF shl 24) or ((it * 20) shl 16) or ((255 - it) shl 8) or it }
        val (mean, std) = listOf(120.0, 110.0, 100.0) to listOf(58.0, 57.0, 56.0)
        val values = Pictures.input(Picture(4, 3, pixels), 3, 4, 3, mean, std)
        assertArrayEquals(pixels, Pictures.shown(values, 3, 4, 3, mean, std).pixels)
    }

    @Test
    fun `real values lie on integer grids as in NumPy`() {
        for (row in rows("grids")) {
            val real = numbers(row["real"])
            val grid = Grid(number(row["scale"]).toFloat(), number(row["zero_point"]).toInt())
            val info = TensorInfo("x", ElementType.of(row["type"] as String)!!, listOf(1, real.size), grid)
            val into = info.buffer()
            Values.put(real.map { it.toFloat() }.toFloatArray(), info, into)
            assertArrayEquals(numbers(row["integers"]), Values.raw(into, info.type), 0.0)
            assertArrayEquals(numbers(row["bytes"]).map { it.toInt().toByte() }.toByteArray(), ByteArray(into.limit()) { into[it] })
            assertArrayEquals(numbers(row["back"]), Values.real(into, info), 0.0)
        }
    }

    @Test
    fun `statistics are NumPy's`() {
        for (row in rows("statistics")) {
            val got = Statistics.summary(numbers(row["times"]))
            for ((name, value) in mapOf("median" to got.median, "p90" to got.p90, "p99" to got.p99, "min" to got.min)) {
                assertEquals(name, number(row[name]), value, 1e-12 * value)
            }
            if (row["spread"] == null) assertNull(got.spread) else assertEquals(number(row["spread"]), got.spread!!, 1e-9)
        }
        for (row in rows("ratios")) {
            val sides = listOf("own", "first").map { side -> (row[side] as List<*>).map(::numbers) }
            assertEquals(number(row["ratio"]), Statistics.pairedRatio(sides[0], sides[1])!!, 1e-9)
        }
        assertNull(Statistics.pairedRatio(listOf(doubleArrayOf(1.0)), listOf(doubleArrayOf(0.0))))
    }

    @Test
    fun `agreement is NumPy's`() {
        for (row in rows("agreements")) {
            val type = ElementType.of(row["type"] as String)!!
            val comparison = Comparison()
            for ((expected, got) in (row["expected"] as List<*>).zip(row["got"] as List<*>)) {
                val info = TensorInfo("y", type, listOf(1, 10), if (type == ElementType.INT8) Grid(0.1f, 3) else null)
                comparison.add(info, bytes(numbers(expected), info), bytes(numbers(got), info))
            }
            val found = comparison.result()!!
            assertEquals(number(row["equal"]), found.equal, 1e-12)
            assertEquals(number(row["largest"]), found.largest, 1e-12)
            assertEquals(number(row["same_top"]), found.sameTop!!, 1e-12)
            assertEquals(row["agrees"], found.agrees)
            assertEquals(row["decibels"]?.let(::number) ?: Double.POSITIVE_INFINITY, found.decibels, 1e-6)
            assertEquals(if (type == ElementType.INT8) "steps" else "real", found.unit)
        }
    }

    @Test
    fun `values that are not finite never agree with numbers`() {
        val info = TensorInfo("y", ElementType.FLOAT32, listOf(1, 2))
        val found = Comparison().apply { add(info, bytes(doubleArrayOf(1.0, 2.0), info), bytes(doubleArrayOf(1.0, Double.NaN), info)) }.result()!!
        assertEquals(false, found.agrees)
        assertEquals(0.5, found.equal, 0.0)
    }

    @Test
    fun `answers of an integer file agree within a step of the grid that they came from`() {
        val info = TensorInfo("y", ElementType.FLOAT32, listOf(1, 2))
        fun agrees(step: Double) = Comparison()
            .apply { add(info, bytes(doubleArrayOf(0.25, 0.5), info), bytes(doubleArrayOf(0.25, 0.50390625), info), step) }.result()!!.agrees
        assertEquals(listOf(true, false), listOf(agrees(1 / 256.0), agrees(0.0)))
    }

    @Test
    fun `the largest classes come first, with probabilities where there are some`() {
        for (row in rows("tops")) {
            val values = numbers(row["values"])
            val got = Answers.top(values, listOf("a", "b"), 3)
            assertEquals(numbers(row["order"]).map { it.toInt() }, got.map { it.position })
            assertEquals(got.map { listOf("a", "b").getOrElse(it.position) { at -> "class $at" } }, got.map { it.label })
            assertEquals(row["probabilities"], got.all { it.share != null })
            assertEquals(values[got[0].position], got[0].value, 0.0)
        }
    }

    private fun bytes(values: DoubleArray, info: TensorInfo): ByteBuffer = info.buffer().also { into ->
        for (value in values) if (info.type == ElementType.INT8) into.put(value.toInt().toByte()) else into.putFloat(value.toFloat())
        into.rewind()
    }
}
