package dev.tfcompress.demo.tensor

import kotlin.math.abs
import kotlin.math.ceil
import kotlin.math.floor
import kotlin.math.max
import kotlin.math.min

/** A picture as 0xAARRGGBB pixels, row by row. */
class Picture(val width: Int, val height: Int, val pixels: IntArray) {
    init {
        require(width > 0 && height > 0 && pixels.size == width * height) { "a picture of $width x $height" }
    }
}

/** What lies between a photo and a model: (pixel - mean) / std of the photo's middle, made small. */
object Pictures {
    /**
     * The largest middle part that has the shape wanted, resized and normalised.
     *
     * Resizing weighs pixels by triangles as wide as the step is (`tf.image.resize(..., antialias=True)`); grey is
     * 0.2989 R + 0.5870 G + 0.1140 B (`tf.image.rgb_to_grayscale`), taken first.
     *
     * @return [height, width, channels] values.
     */
    fun input(picture: Picture, height: Int, width: Int, channels: Int, mean: List<Double>, std: List<Double>): FloatArray {
        require(channels == 1 || channels == 3) { "$channels channels are no picture" }
        val (left, top, across, down) = middle(picture.width, picture.height, width, height)
        val columns = weights(across, width)
        val rows = weights(down, height)
        val result = FloatArray(height * width * channels)
        for (channel in 0 until channels) {
            val narrow = Array(down) { y ->
                val line = DoubleArray(across) { x -> level(picture.pixels[(top + y) * picture.width + left + x], channel, channels) }
                DoubleArray(width) { x -> columns[x].sum(line) }
            }
            val (m, s) = mean[min(channel, mean.lastIndex)] to std[min(channel, std.lastIndex)]
            for (y in 0 until height) for (x in 0 until width) {
                val value = rows[y].sum { narrow[it][x] }
                result[(y * width + x) * channels + channel] = ((value - m) / s).toFloat()
            }
        }
        return result
    }

    /** Normalised values as a picture to be looked at. */
    fun shown(values: FloatArray, height: Int, width: Int, channels: Int, mean: List<Double>, std: List<Double>): Picture {
        fun level(at: Int, channel: Int): Int {
            val value = values[at * channels + min(channel, channels - 1)]
            val (m, s) = mean[min(channel, mean.lastIndex)] to std[min(channel, std.lastIndex)]
            return Math.round(value * s + m).coerceIn(0, 255).toInt()
        }
        return Picture(width, height, IntArray(height * width) { at ->
            (0xFF shl 24) or (level(at, 0) shl 16) or (level(at, 1) shl 8) or level(at, 2)
        })
    }

    /** Left, top, width and height of the largest middle part as wide to high as asked. */
    internal fun middle(width: Int, height: Int, wide: Int, high: Int): List<Int> {
        val across = min(width, max(1, Math.round(height.toDouble() * wide / high).toInt()))
        val down = min(height, max(1, Math.round(width.toDouble() * high / wide).toInt()))
        return listOf((width - across) / 2, (height - down) / 2, across, down)
    }

    private fun level(pixel: Int, channel: Int, channels: Int): Double {
        val (red, green, blue) = Triple((pixel shr 16) and 0xFF, (pixel shr 8) and 0xFF, pixel and 0xFF)
        if (channels == 1) return 0.2989 * red + 0.5870 * green + 0.1140 * blue
        return (if (channel == 0) red else if (channel == 1) green else blue).toDouble()
    }

    private class Weights(val from: Int, val shares: DoubleArray) {
        fun sum(line: DoubleArray): Double = sum { line[it] }

        inline fun sum(value: (Int) -> Double): Double {
            var total = 0.0
            for (i in shares.indices) total += shares[i] * value(from + i)
            return total
        }
    }

    private fun weights(from: Int, to: Int): Array<Weights> {
        val step = from.toDouble() / to
        val reach = max(1.0, step)
        return Array(to) { position ->
            val centre = (position + 0.5) * step
            val first = max(0, floor(centre - reach).toInt())
            val last = min(from, ceil(centre + reach).toInt())
            val shares = DoubleArray(last - first) { max(0.0, 1 - abs((first + it + 0.5 - centre) / reach)) }
            val total = shares.sum()
            for (i in shares.indices) shares[i] /= total
            Weights(first, shares)
        }
    }
}
